import io

import pytest
from PIL import Image

from pipeline.explore import thumbnails
from pipeline.explore.thumbnails import NotShownError, thumbnail, whole_picture
from pipeline.storage import store
from tests.pipeline.images.encoded import ORIENTATION, encode, png, scene


@pytest.fixture
def stored(tmp_path):
    """Store a file; its URI, version and size."""

    def stored(content: bytes, name: str = "a") -> tuple[str, str, int]:
        (tmp_path / name).write_bytes(content)
        found = store.stat(str(tmp_path / name))
        return found.uri, found.etag, found.size_bytes

    return stored


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_small_and_whole_pictures(kind, stored):
    version = stored(encode(scene(480, 320), kind))
    small = opened(thumbnail(*version, 120))
    assert (small.format, small.size) == ("JPEG", (120, 80))
    content, media_type = whole_picture(*version)
    assert opened(content).size == (480, 320)
    assert media_type == {"BMP": "image/jpeg", "TIFF": "image/jpeg"}.get(kind, f"image/{kind.lower()}")


def test_pictures_are_upright_and_small_ones_are_not_enlarged(stored):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert opened(thumbnail(*stored(encode(scene(48, 32), "JPEG", exif=exif)), 120)).size == (32, 48)


def test_what_is_transparent_is_on_white(stored):
    small = opened(thumbnail(*stored(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")), 8))
    assert min(small.getpixel((4, 4))) > 250


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture"),
        (b"", "is no picture"),
        (encode(scene(), "JPEG")[:200], "can't be decoded|is no picture"),
        (png(30_000, 30_000, 8, 0, b""), "900000000|too many|30000 × 30000"),
    ],
)
def test_what_is_not_shown(content, message, stored):
    with pytest.raises(NotShownError, match=message):
        thumbnail(*stored(content), 120)


def test_whole_pictures_are_images_only(stored):
    """An HTML page or an SVG is never sent to the browser, whatever its name."""
    for content in (b"<html><script>alert(1)</script>", b"<svg onload='alert(1)'/>"):
        with pytest.raises(NotShownError, match="is no picture"):
            whole_picture(*stored(content, "a.jpg"))


def test_a_picture_that_has_gone_or_was_replaced(stored, tmp_path):
    uri, etag, size_bytes = stored(encode(scene(), "JPEG"))
    (tmp_path / "a").write_bytes(encode(scene(20, 20), "JPEG"))
    with pytest.raises(NotShownError, match="has changed since it was listed"):
        thumbnail(uri, etag, size_bytes, 120)
    (tmp_path / "a").unlink()
    with pytest.raises(NotShownError, match="No such file"):
        thumbnail(uri, etag, size_bytes, 120)
    assert thumbnails.DECODING._value == 2  # nothing holds a place
