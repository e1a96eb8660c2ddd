"""Pictures as files of all kinds, and what decoding shows of them."""

import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image

from pipeline.images.decode import decode

WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)


ORIENTATION = 0x0112


MPO = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}


def scene(width_px: int = 48, height_px: int = 32) -> Image.Image:
    """Smooth, and different in each corner, so that any turn shows and any codec keeps it."""
    y, x = np.mgrid[0 : 1 : height_px * 1j, 0 : 1 : width_px * 1j]
    return Image.fromarray((255 * np.stack([x, y, 1 - x * y], axis=-1)).astype(np.uint8))


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, kind, **options)
    return encoded.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width_px: int, height_px: int, bits: int, color: int, pixels: bytes, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width_px, height_px, bits, color, 0, 0, 0)
    parts = png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(pixels)), png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def little_endian(kind: str, *values: int) -> bytes:
    return struct.pack(f"<{kind}", *values)


def tiff(width_px: int, height_px: int, pixels: bytes, **tags: int) -> bytes:
    """One strip, little-endian, gray of 8 bits unless tags say otherwise."""
    numbers = {
        "bits": 258,
        "compression": 259,
        "photometric": 262,
        "orientation": 274,
        "samples": 277,
        "extra": 338,
        "format": 339,
    }
    entries = {256: width_px, 257: height_px, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height_px, 279: len(pixels)}
    entries |= {numbers[name]: value for name, value in tags.items()}
    directory = b"".join(little_endian("HHII", number, 4, 1, value) for number, value in sorted(entries.items()))
    header = b"II*\0" + little_endian("I", 8 + len(pixels))
    return header + pixels + little_endian("H", len(entries)) + directory + bytes(4)


def bmp(width_px: int, height_px: int, bits: int, compression: int, pixels: bytes, between: bytes = b"") -> bytes:
    """Version 3; between the headers and the pixels stand masks or the palette."""
    offset = 54 + len(between)
    header = b"BM" + little_endian("IHHI", offset + len(pixels), 0, 0, offset)
    sizes = little_endian(
        "IiiHHIIiiII", 40, width_px, height_px, 1, bits, compression, len(pixels), 0, 0, len(between) // 4, 0
    )
    return header + sizes + between + pixels


def gif(canvas_px: tuple[int, int], *chunks: bytes) -> bytes:
    """Of red and blue."""
    palette = bytes([*RED, *BLUE])
    return b"GIF89a" + little_endian("HHBBB", *canvas_px, 0x80, 0, 0) + palette + b"".join(chunks) + b";"


def gif_frame(left_px: int, top_px: int) -> bytes:
    """Two pixels, red and blue: LZW of two bits, the codes clear, 0, 1, end."""
    return b"," + little_endian("HHHHB", left_px, top_px, 2, 1, 0) + b"\x02\x02\x44\x0a\x00"


def shown(data: bytes) -> list[list[list[int]]]:
    rows: list[list[list[int]]] = decode(data).permute(1, 2, 0).tolist()
    return rows


def gray(data: bytes) -> list[list[int]]:
    found = decode(data)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    rows: list[list[int]] = found[0].tolist()
    return rows


def assert_shows(data: bytes, expected: Image.Image, tolerance: int = 0) -> None:
    found = decode(data)
    assert (found.dtype, found.shape) == (torch.uint8, (3, expected.height, expected.width))
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected.convert("RGB")).astype(int))
    assert difference.max() <= tolerance
