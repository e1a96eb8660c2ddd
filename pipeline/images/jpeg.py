"""The parts of JPEG files (ITU T.81, annex B), up to the first scan."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

START = b"\xff\xd8\xff"
START_OF_SCAN = 0xDA
PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
"""The frames of the usual processes: baseline, extended and progressive, all with Huffman codes."""
WITHOUT_MEANING = frozenset({0xC4, 0xDB, 0xDD, 0xE0, *range(0xE3, 0xF0), 0xFE})
"""The segments that say neither how large a picture is nor how it is turned. APP1 may hold EXIF, and APP2 further pictures."""
UNUSUAL_PROCESSES = {
    0xC3: "a lossless", 0xC5: "a hierarchical", 0xC6: "a hierarchical", 0xC7: "a lossless hierarchical",
    0xC9: "an arithmetically coded", 0xCA: "an arithmetically coded", 0xCB: "a lossless, arithmetically coded",
    0xCD: "a hierarchical", 0xCE: "a hierarchical", 0xCF: "a lossless hierarchical", 0xF7: "a lossless (JPEG-LS)",
}  # fmt: skip
"""The unusual coding processes of JPEG, by the marker of the frame."""


class PlainHeader(NamedTuple):
    """The header of an upright JPEG of 8 bits, in gray or three colours."""

    width_px: int
    height_px: int
    end: int
    """The number of bytes up to the first scan."""


def plain_header(data: bytes) -> PlainHeader | None:
    """Return the header of a JPEG without EXIF or anything unusual, or None. Pillow takes ten times as long for it."""
    size_px: tuple[int, int] | None = None
    if not data.startswith(START):
        return None
    for marker, start, end in _segments(data):
        if marker == START_OF_SCAN:
            return PlainHeader(*size_px, end) if size_px else None
        if marker in PLAIN_FRAMES and not size_px and end - start >= 6:
            bits, height_px, width_px, num_components = struct.unpack_from(">BHHB", data, start)
            if bits != 8 or num_components not in (1, 3) or not height_px or not width_px:
                return None
            size_px = width_px, height_px
        elif marker not in WITHOUT_MEANING:
            return None
    return None


def unusual_process(data: bytes) -> str:
    """Return what is unusual about a JPEG's coding process (ITU T.81, table B.1), or "" if nothing is."""
    return next((UNUSUAL_PROCESSES[marker] for marker, *_ in _segments(data) if marker in UNUSUAL_PROCESSES), "")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the first byte and the end of each whole segment, up to the header of the first scan."""
    marker, end = 0, 2
    while marker != START_OF_SCAN and end + 4 <= len(data) and data[end] == 0xFF:
        marker, start = data[end + 1], end + 4
        end += 2 + int.from_bytes(data[end + 2 : start])
        if end > len(data):
            return
        yield marker, start, end
