"""The parts of PNG files (ISO/IEC 15948, section 5)."""

import struct

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHOWN = (b"tRNS", b"eXIf")
"""Parts that a picture can do without, and that change how it looks to us."""


def without_notes(data: bytes) -> bytes | None:
    """Return a PNG without the parts that don't change the picture: texts, times, profiles; None where it has none, or is no PNG."""
    if not data.startswith(SIGNATURE):
        return None
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        is_needed = kind[:1].isupper() or kind in SHOWN
        if is_needed or end > len(data):
            kept.append(data[at:end])
        at = end
    mended = b"".join(kept)
    return mended if len(mended) < len(data) else None
