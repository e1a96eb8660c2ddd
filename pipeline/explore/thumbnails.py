"""Pictures for a browser: small ones, and whole ones in a format that it shows."""

import io
import threading
import warnings

from PIL import Image, ImageOps

from pipeline.images.read import read_version

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
"""The formats that are opened. A browser shows the first four by itself."""
BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
MAX_PIXELS = 100_000_000
"""The most pixels that are decoded whole. A JPEG is decoded at a fraction."""
LARGE_PX = 2048
"""The longer side of a whole picture that has to be converted."""
DECODING = threading.Semaphore(2)
"""The number of pictures that are decoded at once, which bounds the memory that they take."""


class NotShownError(Exception):
    """A picture can't be shown. The message says why."""


def thumbnail(uri: str, etag: str, size_bytes: int | None, side_px: int) -> bytes:
    """Return a small JPEG of an image, upright.

    Args:
        uri, etag, size_bytes: the version that was detected in.
        side_px: the longer side of the result.

    Raises:
        NotShownError: it has gone, was replaced, or is no picture.
    """
    return _converted(_read(uri, etag, size_bytes), side_px)


def whole_picture(uri: str, etag: str, size_bytes: int | None) -> tuple[bytes, str]:
    """Return an image as a file that a browser shows, and its media type; raises as `thumbnail`."""
    content = _read(uri, etag, size_bytes)
    with _opened(content) as opened:
        kind = BROWSER_TYPES.get(opened.format or "")
    return (content, kind) if kind else (_converted(content, LARGE_PX), "image/jpeg")


def _read(uri: str, etag: str, size_bytes: int | None) -> bytes:
    try:
        return read_version(uri, etag, size_bytes, is_patient=False).data
    except Exception as error:  # whatever the store raises
        raise NotShownError(f"can't be read: {error}") from error


def _opened(content: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception as error:  # Pillow raises errors of many types
        raise NotShownError(f"is no picture that can be shown: {error}") from error


def _converted(content: bytes, side_px: int) -> bytes:
    with DECODING, _opened(content) as opened:
        opened.draft("RGB", (side_px, side_px))
        if opened.width * opened.height > MAX_PIXELS:
            raise NotShownError(f"has {opened.width} × {opened.height} pixels, which are too many to show")
        try:
            upright = ImageOps.exif_transpose(opened)
            upright.thumbnail((side_px, side_px))
            flat = upright.convert("RGBA")
            small = Image.new("RGB", flat.size, "white")
            small.paste(flat, mask=flat)
            encoded = io.BytesIO()
            small.save(encoded, "JPEG", quality=80)
        except Exception as error:  # Pillow raises errors of many types
            raise NotShownError(f"can't be decoded: {error}") from error
        return encoded.getvalue()
