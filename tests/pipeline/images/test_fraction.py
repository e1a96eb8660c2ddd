"""Large JPEGs that are decoded at a fraction of their size."""

import pytest
import torch
from PIL import Image

from model.preprocess import resize
from pipeline.images.decode import DecodeError, decode_stored
from tests.pipeline.images.encoded import MPO, ORIENTATION, encode, scene


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
