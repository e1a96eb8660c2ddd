import csv
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pipeline.decode import DecodeError, decode

WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)
ORIENTATION = 0x0112


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


def assert_shows(data: bytes, expected: Image.Image, tolerance: int = 0) -> None:
    found = decode(data)
    assert (found.dtype, found.shape) == (torch.uint8, (3, expected.height, expected.width))
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected.convert("RGB")).astype(int))
    assert difference.max() <= tolerance


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, options, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(scene(), kind, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert upright.size == ((48, 32) if orientation < 5 else (32, 48))
    assert_shows(data, upright, tolerance=3)


def test_exif_orientation_after_the_pixels_is_applied():
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, ORIENTATION, 3, 1, 3, 0, 0)  # orientation 3: turned by 180°
    data = png(2, 1, 8, 2, bytes([0, *RED, *BLUE]))
    end = len(data) - 12  # IEND
    assert decode(data)[:, 0, 0].tolist() == [*RED]
    assert decode(data[:end] + png_chunk(b"eXIf", tiff) + data[end:])[:, 0, 0].tolist() == [*BLUE]


def test_an_orientation_that_does_not_exist_changes_nothing():
    exif = Image.Exif()
    exif[ORIENTATION] = 9
    assert_shows(encode(scene(), "JPEG", quality=95, exif=exif), scene(), tolerance=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_memory_is_channels_last(kind):
    """Resizing is ten times faster so."""
    assert decode(encode(scene(), kind)).permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_gray_has_three_equal_channels(kind):
    found = decode(encode(scene().convert("L"), kind))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_formats_without_loss_are_exact(mode, kind):
    data = encode(scene().convert(mode), kind)
    assert_shows(data, Image.open(io.BytesIO(data)))


def test_four_bit_gray_is_exact():
    assert decode(png(2, 1, 4, 0, b"\0\x0f")).tolist() == [[[0, 255]]] * 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_shown_on_white(kind):
    picture = Image.new("RGBA", (3, 1), (*RED, 255))
    picture.putpixel((1, 0), (*RED, 0))
    picture.putpixel((2, 0), (*RED, 51))  # a fifth of red on white: 255 - 51 = 204
    options = {"lossless": True} if kind == "WEBP" else {}
    shown = decode(encode(picture, kind, **options)).permute(1, 2, 0).tolist()
    assert shown == [[[*RED], [*WHITE], [255, 204, 204]]]


def test_a_transparent_palette_entry_is_shown_on_white():
    picture = Image.new("P", (2, 1), 1)
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((0, 0), 0)
    assert decode(encode(picture, "PNG", transparency=0)).permute(1, 2, 0).tolist() == [[[*WHITE], [*BLUE]]]
    assert decode(encode(picture, "GIF", transparency=0)).permute(1, 2, 0).tolist() == [[[*WHITE], [*BLUE]]]


def test_a_transparent_colour_is_shown_on_white():
    data = png(2, 1, 8, 2, bytes([0, *RED, *BLUE]), png_chunk(b"tRNS", struct.pack(">HHH", *RED)))
    assert decode(data).permute(1, 2, 0).tolist() == [[[*WHITE], [*BLUE]]]


def test_sixteen_bits_are_scaled_to_eight():
    gray = Image.fromarray(np.array([[0, 0x1111, 0x8080, 0xFFFF]], dtype=np.uint16))
    for kind in ("PNG", "TIFF"):
        assert decode(encode(gray, kind)).tolist() == [[[0, 0x11, 0x80, 0xFF]]] * 3
    colours = struct.pack(">B6H", 0, 0xFFFF, 0x8080, 0, 0, 0x1111, 0xFFFF)
    found = decode(png(2, 1, 16, 2, colours))
    assert found.dtype == torch.uint8
    assert found.permute(1, 2, 0).tolist() == [[[0xFF, 0x80, 0], [0, 0x11, 0xFF]]]
    transparent = png(2, 1, 16, 0, struct.pack(">B2H", 0, 255, 257), png_chunk(b"tRNS", struct.pack(">H", 255)))
    assert decode(transparent).tolist() == [[[255, 1]]] * 3


def test_floats_are_scaled_by_their_extremes():
    values = np.array([[-1.0, 0.0, 3.0]], dtype=np.float32)
    assert decode(encode(Image.fromarray(values), "TIFF")).tolist() == [[[0, 63, 255]]] * 3
    assert decode(encode(Image.fromarray(np.full((1, 2), 7.0, np.float32)), "TIFF")).tolist() == [[[0, 0]]] * 3
    for value in (np.nan, np.inf):
        with pytest.raises(DecodeError, match="no finite numbers"):
            decode(encode(Image.fromarray(np.array([[0.0, value]], dtype=np.float32)), "TIFF"))


def test_cmyk_is_converted():
    data = encode(scene().convert("CMYK"), "JPEG", quality=95)
    assert_shows(data, Image.open(io.BytesIO(data)))
    assert_shows(data, scene(), tolerance=12)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_taken(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = [Image.new("RGB", (4, 2), colour) for colour in (RED, BLUE)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert_shows(data, frames[0])


def test_the_first_picture_of_a_phones_pair_is_taken():
    data = encode(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert_shows(data, Image.open(io.BytesIO(data)), tolerance=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_one_pixel_is_a_picture(kind):
    assert decode(encode(Image.new("RGB", (1, 1), WHITE), kind)).flatten().tolist() == [*WHITE]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {})],
)
def test_a_picture_that_is_cut_short_is_refused_or_whole(kind, options):
    data = encode(scene(), kind, **options)
    whole = decode(data)
    for length in range(0, len(data) - 32, 1 + len(data) // 40):
        with pytest.raises(DecodeError, match=r"\w+ \w+"):
            decode(data[:length])
    for length in range(len(data) - 32, len(data)):  # All pixels are there, and only the end mark is not.
        try:
            assert torch.equal(decode(data[:length]), whole)
        except DecodeError:
            continue


def test_what_follows_the_picture_does_not_matter():
    data = encode(scene(), "JPEG")
    assert torch.equal(decode(data + b"garbage" * 100), decode(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"this is no picture, whatever its name says\n" * 5, "no known image format"),
        (b"\xff\xd8\xff\xe0", "broken|no known"),
        (encode(scene(), "JPEG")[:300], "JPEG|broken"),
        (encode(scene(), "PNG")[:33], "PNG|no known"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n", "no known image format"),
    ],
)
def test_what_is_no_picture_is_refused(data, message):
    with pytest.raises(DecodeError, match=message):
        decode(data)


def test_a_png_with_any_bit_flipped_is_refused_or_right():
    """Each chunk has a checksum. torchvision's decoder ends the process here."""
    data = encode(scene(), "PNG")
    whole = decode(data)
    for position in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        try:
            assert torch.equal(decode(bytes(flipped)), whole)
        except DecodeError:
            continue


@pytest.mark.parametrize("side_px", [14_143, 30_000])
def test_a_bomb_is_refused_by_its_header(side_px):
    """14,143² is just above the bound; above twice Pillow's own bound it is Pillow that refuses."""
    with pytest.raises(DecodeError, match="max_pixels = 200000000"):
        decode(png(side_px, side_px, 8, 2, b""))


def test_the_bound_is_the_callers():
    data = png(20, 10, 8, 2, (b"\0" + b"\x80" * 60) * 10)
    assert decode(data, max_pixels=200).shape == (3, 10, 20)
    with pytest.raises(DecodeError, match="max_pixels = 199"):
        decode(data, max_pixels=199)
    with pytest.raises(DecodeError, match="PNG can't be decoded"):  # Allowed, though Pillow's own bound is lower.
        decode(png(20_000, 10_000, 8, 3, b"", png_chunk(b"PLTE", bytes(3))))


def test_a_bomb_in_a_picture_is_refused():
    bomb = png(30_000, 30_000, 8, 2, b"")
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(bomb), 22) + bomb
    with pytest.raises(DecodeError):
        decode(icon)


FOLDER = os.environ.get("SSD_BATCH_DATA")


@pytest.mark.skipif(FOLDER is None, reason="SSD_BATCH_DATA names no folder with hostile/MANIFEST.csv")
def test_the_hostile_set_gives_what_is_expected():
    folder = Path(FOLDER, "hostile")
    with open(folder / "MANIFEST.csv", newline="") as manifest:
        expected = {row["file"]: row["expect"] for row in csv.DictReader(manifest)}
    wrong = {}
    for name, expect in expected.items():
        try:
            found = decode((folder / name).read_bytes())
            assert (found.dtype, found.shape[0]) == (torch.uint8, 3), name
            result = "ok"
        except DecodeError:
            result = "reject"
        if expect not in (result, "either"):
            wrong[name] = result
    assert expected
    assert wrong == {}
