"""The pixels of pictures of all kinds."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from pipeline.images.decode import FORMATS, DecodeError, decode, read_size, turn
from tests.pipeline.images.encoded import (
    BLUE,
    ORIENTATION,
    RED,
    WHITE,
    assert_shows,
    bmp,
    encode,
    gif,
    gif_frame,
    gray,
    little_endian,
    png,
    png_chunk,
    scene,
    shown,
    tiff,
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_size_without_the_pixels_is_that_of_the_upright_picture(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(scene(), kind, exif=exif)
    assert read_size(data) == tuple(reversed(decode(data).shape[1:])) == ((48, 32) if orientation < 5 else (32, 48))


def test_the_size_of_a_png_with_megabytes_of_text():
    notes = PngInfo()
    notes.add_text("comment", "x" * 2**21, zip=True)
    assert read_size(encode(scene(), "PNG", pnginfo=notes)) == (48, 32)


def test_the_size_of_a_png_that_is_cut():
    """Pillow would look for an orientation behind the pixels; whoever has more of the file tries that."""
    data = encode(Image.effect_noise((64, 64), 50), "PNG")
    with pytest.raises(DecodeError, match="PNG can't be decoded: "):
        read_size(data[:1000])
    assert read_size(data) == (64, 64)


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_one_pixel_is_a_picture(kind):
    assert decode(encode(Image.new("RGB", (1, 1), WHITE), kind)).flatten().tolist() == [*WHITE]


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow has no AVIF")
def test_avif():
    assert_shows(encode(scene(), "AVIF", quality=95), scene(), tolerance=16)


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
