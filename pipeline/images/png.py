"""The parts of PNG files (ISO/IEC 15948, section 5)."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NOTES = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
"""The parts that do not change the picture: texts and times."""
SHOWN = (b"tRNS", b"eXIf")
"""The optional parts that change how a picture looks to us."""


def without_notes(data: bytes) -> bytes | None:
    """Return a PNG without its notes, and with right checksums of the optional parts that are not shown.

    Returns:
        The changed PNG; None if nothing is to be changed, or it is no PNG.
    """
    if not data.startswith(SIGNATURE):
        return None
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        is_needed = kind[:1].isupper() or kind in SHOWN or end > len(data)
        if is_needed:
            kept.append(data[at:end])
        elif kind not in NOTES:
            kept += [data[at : end - 4], struct.pack(">I", zlib.crc32(data[at + 4 : end - 4]))]
        at = end
    mended = b"".join(kept)
    return mended if mended != data else None
