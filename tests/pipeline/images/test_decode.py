import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from model.preprocess import resize
from pipeline.images.decode import FORMATS, DecodeError, decode, decode_stored, turn

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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0", b"Exif\0\0no TIFF header at all", b"Exif\0\0MM\0*\xff\xff\xff\0"]
)
def test_broken_exif_turns_nothing(kind, exif):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    assert_shows(encode(scene(), kind, exif=exif, **options), scene(), tolerance=12)


@pytest.mark.parametrize("value", [0, 9, 65_535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_that_does_not_exist_changes_nothing(kind, value):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    assert_shows(encode(scene(), kind, exif=exif), scene(), tolerance=16)


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


@pytest.mark.parametrize(("bits", "pixels", "transparent"), [(1, 0b01000000, 0), (2, 0b00010000, 0), (4, 0x0F, 0)])
def test_a_transparent_gray_of_few_bits_is_shown_on_white(bits, pixels, transparent):
    """Black, which is transparent, and another gray."""
    other = {1: 255, 2: 85, 4: 255}[bits]
    data = png(2, 1, bits, 0, bytes([0, pixels]), png_chunk(b"tRNS", struct.pack(">H", transparent)))
    assert gray(data) == [[255, other]]


@pytest.mark.parametrize(("bits", "step"), [(2, 85), (4, 17)])
def test_only_the_transparent_gray_of_few_bits_becomes_white(bits, step):
    """Pillow scales the pixels, and looks for the unscaled colour."""
    pixels = {2: bytes([0, 0b00011011]), 4: bytes([0, 0x01, 0x23])}[bits]
    data = png(4, 1, bits, 0, pixels, png_chunk(b"tRNS", struct.pack(">H", 1)))
    assert gray(data) == [[0, 255, 2 * step, 3 * step]]


def test_a_transparent_colour_of_sixteen_bits_is_shown_on_white():
    colours = struct.pack(">B6H", 0, 0xFFFF, 0x1234, 0, 0, 0, 0xFFFF)
    data = png(2, 1, 16, 2, colours, png_chunk(b"tRNS", struct.pack(">HHH", 0xFFFF, 0x1234, 0)))
    assert shown(data) == [[[*WHITE], [*BLUE]]]


def test_gray_with_premultiplied_alpha_is_shown_on_white():
    """White and black, both a fifth opaque."""
    data = tiff(2, 1, bytes([51, 51, 0, 51]), samples=2, extra=1)
    assert gray(data) == [[255, 204]]


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


def test_gray_of_twelve_bits_is_scaled_to_eight():
    assert gray(tiff(2, 1, bytes([0x00, 0x0F, 0xFF]), bits=12)) == [[0, 255]]


@pytest.mark.parametrize(("bits", "pixels"), [(1, b"\x80"), (8, b"\xff\0"), (16, b"\xff\xff\0\0")])
def test_white_may_be_zero(bits, pixels):
    assert gray(tiff(2, 1, pixels, bits=bits, photometric=1)) == [[255, 0]]
    assert gray(tiff(2, 1, pixels, bits=bits, photometric=0)) == [[0, 255]]


def test_floats_are_scaled_by_their_extremes():
    values = np.array([[-1.0, 0.0, 3.0]], dtype=np.float32)
    assert gray(encode(Image.fromarray(values), "TIFF")) == [[0, 64, 255]]
    assert gray(encode(Image.fromarray(np.full((1, 2), 7.0, np.float32)), "TIFF")) == [[0, 0]]
    for value in (np.nan, np.inf):
        with pytest.raises(DecodeError, match="no finite numbers"):
            decode(encode(Image.fromarray(np.array([[0.0, value]], dtype=np.float32)), "TIFF"))


def test_integers_of_32_bits_are_scaled_by_their_extremes():
    assert gray(tiff(3, 1, struct.pack("<3i", -100, 0, 300), bits=32, format=2)) == [[0, 64, 255]]
    assert gray(tiff(3, 1, struct.pack("<3I", 0, 100, 400), bits=32)) == [[0, 64, 255]]
    with pytest.raises(DecodeError, match="all of 32 bits"):  # Pillow has it wrong: white would come out black.
        decode(tiff(2, 1, struct.pack("<2I", 0, 2**32 - 1), bits=32))


def test_cmyk_is_converted():
    data = encode(scene().convert("CMYK"), "JPEG", quality=95)
    assert_shows(data, Image.open(io.BytesIO(data)))
    assert_shows(data, scene(), tolerance=12)


def test_ycck_is_converted():
    """Pillow writes no YCCK: it is given the channels as they are to be stored, and the marker is changed from CMYK."""
    inks = ImageOps.invert(scene()).convert(
        "YCbCr"
    )  # Adobe's channels are negative, and so are Pillow's CMYK channels.
    channels = [ImageOps.invert(channel) for channel in inks.split()]
    cmyk = encode(Image.merge("CMYK", [*channels, Image.new("L", inks.size)]), "JPEG", quality=95)
    marker = cmyk.index(b"Adobe") + 11
    assert cmyk[marker] == 0
    assert_shows(cmyk[:marker] + b"\x02" + cmyk[marker + 1 :], scene(), tolerance=12)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_progressive_jpegs_are_as_plain_ones(mode):
    picture = scene().convert(mode)
    progressive = encode(picture, "JPEG", progressive=True)
    assert b"\xff\xc2" in progressive
    assert torch.equal(decode(progressive), decode(encode(picture, "JPEG")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_a_tiffs_orientation_is_applied(compression, orientation):
    data = encode(scene(), "TIFF", compression=compression, tiffinfo={ORIENTATION: orientation})
    upright = turn(torch.from_numpy(np.array(scene())).permute(2, 0, 1), orientation)
    assert_shows(data, Image.fromarray(upright.permute(1, 2, 0).numpy()), tolerance=12 if compression == "jpeg" else 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "LAB", "L", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate"])
def test_a_tiffs_compression_does_not_matter(mode, compression):
    picture = Image.fromarray(np.full((2, 3), 0xCDCD, np.uint16)) if mode == "I;16" else scene().convert(mode)
    assert torch.equal(decode(encode(picture, "TIFF", compression=compression)), decode(encode(picture, "TIFF")))


def test_bitmaps_of_all_kinds():
    """Red above blue; bitmaps lie upside down, unless their height is negative, and their rows are filled to 4 bytes."""
    expected = [[[*RED]], [[*BLUE]]]
    palette = bytes([0, 0, 255, 0, 255, 0, 0, 0])
    red_555, blue_555, red_565, blue_565 = 0x7C00, 0x001F, 0xF800, 0x001F
    masks_565 = little_endian("III", 0xF800, 0x07E0, 0x001F)
    kinds = {
        "24 bits": bmp(1, 2, 24, 0, bytes([255, 0, 0, 0, 0, 0, 255, 0])),
        "top down": bmp(1, -2, 24, 0, bytes([0, 0, 255, 0, 255, 0, 0, 0])),
        "32 bits, the fourth byte means nothing": bmp(1, 2, 32, 0, bytes([255, 0, 0, 0, 0, 0, 255, 7])),
        "555": bmp(1, 2, 16, 0, little_endian("HHHH", blue_555, 0, red_555, 0)),
        "565": bmp(1, 2, 16, 3, little_endian("HHHH", blue_565, 0, red_565, 0), masks_565),
        "palette": bmp(1, 2, 8, 0, bytes([1, 0, 0, 0, 0, 0, 0, 0]), palette),
        "1 bit": bmp(1, 2, 1, 0, bytes([0x80, 0, 0, 0, 0, 0, 0, 0]), palette),
        "4 bits": bmp(1, 2, 4, 0, bytes([0x10, 0, 0, 0, 0, 0, 0, 0]), palette),
        "run lengths": bmp(1, 2, 8, 1, bytes([1, 1, 0, 0, 1, 0, 0, 1]), palette),
    }
    assert {name: shown(data) for name, data in kinds.items()} == dict.fromkeys(kinds, expected)


def test_a_frame_smaller_than_its_gif_stands_on_white():
    red_and_blue = [[*RED], [*BLUE]]
    assert shown(gif((4, 2), gif_frame(1, 1))) == [[[*WHITE]] * 4, [[*WHITE], *red_and_blue, [*WHITE]]]
    red_is_transparent = b"!\xf9\x04\x01\0\0\0\0"
    assert shown(gif((3, 1), red_is_transparent, gif_frame(1, 0))) == [[[*WHITE], [*WHITE], [*BLUE]]]
    assert shown(gif((2, 1), gif_frame(0, 0), gif_frame(0, 0))) == [red_and_blue]


def test_colour_profiles_and_gamma_do_not_matter():
    data = png(2, 1, 8, 2, bytes([0, 9, 99, 199, *BLUE]), png_chunk(b"gAMA", struct.pack(">I", 100_000)))
    assert shown(data) == [[[9, 99, 199], [*BLUE]]]


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


@pytest.mark.parametrize(
    ("size_px", "expected"),
    [((399, 800), (399, 800)), ((400, 800), (100, 200)), ((803, 801), (101, 101)), ((800, 4501), (100, 563))],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_large_jpegs_are_decoded_at_a_fraction(mode, size_px, expected):
    """Both sides keep 100 pixels."""
    stored = decode_stored(encode(scene(*size_px).convert(mode), "JPEG"), min_side_px=100)
    assert (stored.pixels.shape, stored.size_px) == ((3, expected[1], expected[0]), size_px)
    assert stored.pixels.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("MPO", MPO)])
def test_a_picture_at_a_fraction_looks_like_the_whole_one(mode, kind, options):
    data = encode(scene(640, 481).convert(mode), kind, **options)
    whole, fraction = (decode_stored(data, min_side_px=min_side_px).pixels for min_side_px in (None, 100))
    assert (whole.shape, fraction.shape) == ((3, 481, 640), (3, 121, 160))
    assert (resize(fraction, 50).int() - resize(whole, 50).int()).abs().max() <= 2


def test_a_turned_picture_at_a_fraction_has_the_size_of_the_upright_one():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stored = decode_stored(encode(scene(640, 480), "JPEG", exif=exif), min_side_px=100)
    assert (stored.pixels.shape, stored.orientation, stored.size_px) == ((3, 120, 160), 6, (480, 640))


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("RGB", "PNG"), ("RGB", "WEBP")])
def test_other_pictures_are_decoded_whole(mode, kind):
    data = encode(scene(320, 201).convert(mode), kind)
    assert torch.equal(decode_stored(data, min_side_px=50).pixels, decode_stored(data).pixels)


@pytest.mark.parametrize("filler", [b"", b"\0" * 10_000, b"\xff" * 10_000, b"\xff\xd9"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_short_is_refused_at_a_fraction_where_the_whole_is(progressive, filler):
    data = encode(scene(640, 480), "JPEG", progressive=progressive)
    for length in range(100, len(data), len(data) // 20):
        assert refusal(data[:length] + filler, None) == refusal(data[:length] + filler, 100)


def refusal(data: bytes, min_side_px: int | None) -> str:
    """The error, or that there is none."""
    try:
        return f"{len(decode_stored(data, min_side_px=min_side_px).pixels)} channels"
    except DecodeError as error:
        return str(error)


def test_the_bound_is_that_of_the_whole_picture():
    with pytest.raises(DecodeError, match="max_pixels"):
        decode_stored(encode(scene(640, 480), "JPEG"), max_pixels=640 * 480 - 1, min_side_px=100)


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


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_end_was_overwritten_is_refused(mode, progressive):
    """As a download leaves it that was broken off in a file of the full size. libjpeg reads zeros as gray."""
    data = encode(scene().convert(mode), "JPEG", progressive=progressive)
    for filler in (b"\0", b"\xff"):
        with pytest.raises(DecodeError, match="JPEG"):
            decode(data[: len(data) // 2] + filler * 100_000)


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_a_tiff_that_is_cut_short_is_refused(compression):
    """Its directory is at the end or, as Pillow writes it here, before the pixels."""
    data = encode(scene(), "TIFF", compression=compression)
    for length in range(0, len(data) - 256, 1 + len(data) // 40):
        with pytest.raises(DecodeError):
            decode(data[:length])


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
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
            r"this is PostScript \(EPS\)",
        ),
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


def test_too_little_memory_is_not_the_bytes_fault(monkeypatch):
    """Pillow's decoders tell it by an OSError."""

    def load(picture: ImageFile.ImageFile) -> None:
        raise ImageFile._get_oserror(-9, encoder=False)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    with pytest.raises(MemoryError, match="out of memory"):
        decode(data.getvalue())


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


def test_a_bomb_in_a_note_is_passed_over_and_one_in_a_profile_refused():
    text = png_chunk(b"zTXt", b"name\0\0" + zlib.compress(bytes(100_000_000), 9))
    profile = png_chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(100_000_000), 9))
    assert decode(png(1, 1, 8, 0, b"\0\0", text)).tolist() == [[[0]]] * 3
    with pytest.raises(DecodeError, match="too large"):
        decode(png(1, 1, 8, 0, b"\0\0", profile))


@pytest.mark.parametrize("kind", ["TGA", "PPM", "ICO", "PCX", "SGI", "JPEG2000", "DDS", "XBM"])
def test_formats_that_no_camera_writes_are_refused(kind):
    assert kind not in FORMATS
    with pytest.raises(DecodeError, match=r"no known image format|this is"):
        decode(encode(scene().convert("1" if kind == "XBM" else "RGB"), kind))


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow has no AVIF")
def test_avif():
    assert_shows(encode(scene(), "AVIF", quality=95), scene(), tolerance=16)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC .*; convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "CR3"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (encode(scene(), "ICO"), "ICO"),
        (encode(scene(), "PPM"), "PNM"),
        (encode(scene(), "DDS"), "DDS"),
        (b"8BPS\0\1", "PSD"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<html><body>404 Not Found</body></html>", "HTML"),
        (b"\n<!-- x -->\n<!DOCTYPE html>\n<html>", "HTML"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'{"message": "not found"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer.*git lfs pull"),
        (b"PK\3\4\x14\0", "ZIP"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (bytes(2000), "nothing but zeros"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "AppleDouble"),
    ],
)
def test_what_is_no_picture_is_named_by_what_it_is(data, kind):
    with pytest.raises(DecodeError, match=f"^this is .*{kind}"):
        decode(data)


def with_process(marker: int) -> bytes:
    """A JPEG that claims another coding process."""
    return encode(scene(), "JPEG").replace(b"\xff\xc0\0", bytes((0xFF, marker, 0)), 1)


@pytest.mark.parametrize(("marker", "process"), [(0xC3, "a lossless JPEG"), (0xC5, "a hierarchical JPEG")])
def test_a_jpeg_of_an_unusual_process_is_named(marker, process):
    with pytest.raises(DecodeError, match=f"{process}, which viewers can't show; convert it"):
        decode(with_process(marker))


def test_megabytes_of_text_do_not_make_a_png_worse():
    """Pillow refuses more than one in a compressed text."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "x" * 3_000_000, zip=True)
    data = encode(scene(), "PNG", pnginfo=notes)
    assert len(data) < 100_000
    assert_shows(data, scene())


@pytest.mark.parametrize("kind", [b"tEXt", b"iTXt", b"zTXt", b"tIME", b"iCCP", b"prVt"])
def test_the_checksum_of_what_is_not_shown_does_not_matter(kind):
    header = encode(scene(), "PNG")[:33]
    content = b"name\0\0" + zlib.compress(b"profile") if kind == b"iCCP" else b"Comment\0text"
    broken = png_chunk(kind, content)[:-4] + b"\0\0\0\0"
    assert_shows(header + broken + encode(scene(), "PNG")[33:], scene())


def test_a_profile_that_is_compressed_in_an_unknown_way_is_an_error():
    header = encode(scene(), "PNG")[:33]
    for broken in (png_chunk(b"iCCP", b"name\0\1"), png_chunk(b"iCCP", b"name\0\1")[:-4] + b"\0\0\0\0"):
        with pytest.raises(DecodeError, match="no known image format"):
            decode(header + broken + encode(scene(), "PNG")[33:])


def test_the_checksum_of_pixels_does_matter():
    data = bytearray(encode(scene(), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(DecodeError, match="PNG can't be decoded"):
        decode(bytes(data))


@pytest.mark.parametrize(("alpha", "shown"), [(0, RED), (128, (255, 127, 127)), (255, RED)])
def test_a_fourth_byte_of_zeros_all_over_is_no_alpha_in_a_bmp(alpha, shown):
    """Half of the pixels are opaque, unless all are zero."""
    pixels = bytes((0, 0, 255, alpha)) + bytes((0, 0, 255, 255 if alpha else 0))
    masks = little_endian("IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = b"BM" + little_endian("IHHI", 14 + 108 + 8, 0, 0, 14 + 108)
    sizes = little_endian("IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks + bytes(108 - 40 - 16)
    image = decode(header + sizes + pixels)
    assert [tuple(image[:, 0, x].tolist()) for x in range(2)] == [shown, RED]


def test_viewers_take_the_orientation_from_exif_alone():
    """Pillow would also take it from XMP."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(scene(), "JPEG", quality=100, subsampling=0, xmp=xmp)
    assert Image.open(io.BytesIO(data)).getexif().get(ORIENTATION) == 6
    assert_shows(data, scene(), tolerance=16)


MEASURE = Path(__file__).parent / "programs/measure_memory.py"


@pytest.mark.slow
def test_memory_is_bounded(tmp_path):
    """In bytes a pixel, beside the file: twice the picture at most, and what the codec takes."""
    large = Image.effect_noise((500, 500), 20).resize((5000, 5000))
    colours, exif = large.convert("RGB"), Image.Exif()
    exif[ORIENTATION] = 6
    cmyk, alpha = colours.convert("CMYK"), colours.convert("RGBA")
    files = {
        "turned.jpg": (4, encode(colours, "JPEG", exif=exif)),  # 3 for the picture
        "progressive.jpg": (10, encode(colours, "JPEG", progressive=True, subsampling=0)),  # and 2 a coefficient
        "cmyk.jpg": (8, encode(cmyk, "JPEG")),  # 3 and Pillow's 4
        "alpha.png": (8, encode(alpha, "PNG", compress_level=1)),
        "gray16.png": (6, encode(Image.fromarray(np.asarray(large).astype(np.uint16)), "PNG", compress_level=1)),
        "palette.png": (5, encode(large.convert("P"), "PNG", compress_level=1, transparency=7)),
        "float.tif": (8, encode(large.convert("F"), "TIFF", compression="packbits")),
        "canvas.gif": (5, gif((5000, 5000), gif_frame(1, 1))),
        "alpha.webp": (18, encode(alpha, "WEBP", lossless=True, quality=0, method=0)),
    }
    for name, (_, data) in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, MEASURE, *files]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout
    bytes_a_pixel = {name: float(figure) for name, figure in map(str.split, found.splitlines())}
    too_much = {name: figure for name, figure in bytes_a_pixel.items() if figure > files[name][0]}
    assert bytes_a_pixel.keys() == files.keys()
    assert too_much == {}
