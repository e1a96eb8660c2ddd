import io

import pytest
from PIL import Image

from pipeline.images import decode as decode_module
from pipeline.images.decode import DecodeError, decode_stored
from pipeline.images.jpeg import plain_header
from tests.pipeline.images.encoded import MPO, encode, scene


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"comment": b"\xff\xd9"}, {"icc_profile": None, "subsampling": 0}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_header_of_a_plain_jpeg_is_as_pillow_reads_it(mode, options):
    data = encode(scene(50, 31).convert(mode), "JPEG", **options)
    assert plain_header(data) == (50, 31, Image.open(io.BytesIO(data)).fp.tell())


def test_a_header_that_is_cut_short_is_none():
    data = encode(scene(), "JPEG")
    header = plain_header(data)
    assert header is not None
    assert {plain_header(data[:length]) for length in range(header.end)} == {None}


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"exif": Image.Exif()}),
        ("RGB", "JPEG", {"icc_profile": b"p" * 200}),
        ("RGB", "MPO", MPO),
        ("RGB", "PNG", {}),
    ],
)
def test_other_headers_are_left_to_pillow(mode, kind, options):
    assert plain_header(encode(scene().convert(mode), kind, **options)) is None


def test_a_flipped_header_gives_what_it_gives_without_the_short_way(monkeypatch):
    data = encode(scene(), "JPEG", comment=b"note")
    header = plain_header(data)
    assert header is not None
    flipped = [data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] for at in range(header.end) for bit in (1, 64, 255)]
    short = [outcome(picture) for picture in flipped]
    monkeypatch.setattr(decode_module, "plain_header", lambda data: None)
    differing = [at for at, picture in enumerate(flipped) if outcome(picture) != short[at]]
    assert differing == []
    assert len({result for result in short if isinstance(result, str)}) > 5


def outcome(data: bytes) -> object:
    """The size and the pixels, or the error."""
    try:
        stored = decode_stored(data, max_pixels=10**6)
        return stored.size_px, stored.orientation, stored.pixels.numpy().tobytes()
    except DecodeError as error:
        return str(error)
