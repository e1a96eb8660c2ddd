"""The parts of PNG files (ISO/IEC 15948, section 5)."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NOTES = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
SHOWN = (b"tRNS", b"eXIf")
"""The optional parts that change how a picture looks to us."""


def without_notes(data: bytes) -> bytes | None:
    """Return a PNG without its notes, and without other optional parts whose checksum is wrong.

    Returns:
        The PNG without these parts; None if it has none of them, or is no PNG.
    """
    if not data.startswith(SIGNATURE):
        return None
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        is_needed = kind[:1].isupper() or kind in SHOWN or end > len(data)
        if is_needed or (
            kind not in NOTES and zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        ):
            kept.append(data[at:end])
        at = end
    mended = b"".join(kept)
    return mended if len(mended) < len(data) else None
