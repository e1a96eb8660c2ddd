"""Files that are cut short, damaged, too large, or no pictures."""

import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from pipeline.images.decode import FORMATS, DecodeError, decode
from tests.pipeline.images.encoded import (
    ORIENTATION,
    assert_shows,
    encode,
    gif,
    gif_frame,
    png,
    png_chunk,
    scene,
)


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
