"""The decoding of image bytes to pixels, as a viewer shows them."""

import io
import struct
import warnings
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from model.torchvision_ops import decode_jpeg
from pipeline.images.file_kinds import name_kind
from pipeline.images.jpeg import plain_header, unusual_process
from pipeline.images.png import without_notes

MAX_PIXELS = 200_000_000
"""The most pixels of a picture. Larger pictures are refused before they are decoded.

The memory for decoding and resizing was measured at 49 million pixels, in bytes per pixel, next to the file. A JPEG takes 3, a
progressive JPEG 6 to 12. PNG, GIF, BMP and most TIFFs take 4 to 8. A TIFF of 16 bits in one strip or an AVIF takes 12, a WebP 16.
"""

Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
    if name in Image.OPEN  # Pillow has AVIF since 11.3.
)
"""The formats that are opened.

Pillow's forty other formats hold no photographs. Some of them are programs, or have no mark of their own by which to know them.
"""

BAND_PIXELS = 1 << 18
"""The number of pixels that are converted at a time. A picture is in memory twice at most: as Pillow decoded it, and as it comes out."""

PILLOWS_MEMORY_ERROR = "out of memory"
"""The text in the message of an OSError by which Pillow reports too little memory."""
END_OF_IMAGE = b"\xff\xd9"
WORTHWHILE_SCALE = 4
"""The scale from which on Pillow's scaled decoding pays. At 1/4, a JPEG of 12 megapixels took 0.55 to 0.75 of torchvision's time, resize
included; at 1/2 it took as long."""
XMP = ("xmp", "XML:com.adobe.xmp")
"""The keys of XMP notes in Pillow's `info`. Pillow would look for an orientation there, too; viewers use EXIF alone."""
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, UNSIGNED = 0, 1


class DecodeError(ValueError):
    """The bytes are no picture that can be shown. The message says what is wrong with them."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a picture, and turn it upright.

    Args:
        data: the content of a file in any of `FORMATS`, whatever its name says.
        max_pixels: the most pixels that are decoded.

    Returns:
        (3, H, W) uint8 RGB: the first frame or page, transparency on white, values as stored (no gamma, no profile).

    Raises:
        DecodeError: the bytes are empty, of no known format, broken, cut short, or too large.
        MemoryError: there was too little memory, which is not the bytes' fault.
    """
    stored = decode_stored(data, max_pixels)
    return turn(stored.pixels, stored.orientation)


class Stored(NamedTuple):
    """A picture as it is stored in its file, not turned yet."""

    pixels: Tensor
    """(3, H, W) uint8 RGB in channels-last memory."""
    orientation: int
    """The orientation to `turn` the pixels by."""
    size_px: tuple[int, int]
    """The width and height of the upright picture, also where the pixels are a fraction of it."""


def read_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of a picture as a viewer shows it. The beginning of its file is enough, nearly always.

    Raises:
        DecodeError: the bytes are of no image format that is read, or too few.
    """
    try:
        picture = _probe(data, MAX_PIXELS)
    except DecodeError:
        if not (bare := without_notes(data)):  # see `decode_stored`
            raise
        picture = _probe(bare, MAX_PIXELS)
    width_px, height_px = picture.size
    try:
        is_turned = _orientation(picture) >= 5
    except OSError as error:  # Pillow looks for a PNG's behind its pixels, which are cut here
        raise DecodeError(f"{picture.format} can't be decoded: {error}") from error
    is_swapped = is_turned and picture.format != "TIFF"  # of a TIFF, Pillow gives the upright size
    return (height_px, width_px) if is_swapped else (width_px, height_px)


def decode_stored(data: bytes, max_pixels: int = MAX_PIXELS, min_side_px: int | None = None) -> Stored:
    """Decode a picture, and do not turn it; raises as `decode`.

    Resizing to a square before turning is ten times faster than the other way round, and takes half the memory.

    Args:
        data: the content of a file, as for `decode`.
        max_pixels: the most pixels of the whole picture.
        min_side_px: the fewest pixels per side to which a JPEG in RGB or gray may be decoded, at 1/4 or 1/8 of its
            size. By default, all pictures are decoded whole.
    """
    if not data:
        raise DecodeError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large and odd pictures, torch of read-only memory.
        try:
            return _decode_stored(data, max_pixels, min_side_px)
        except DecodeError:
            # Megabytes of text, or a text with a wrong checksum, do not make the picture worse.
            if bare := without_notes(data):
                return _decode_stored(bare, max_pixels, min_side_px)
            raise


def _decode_stored(data: bytes, max_pixels: int, min_side_px: int | None) -> Stored:
    if plain := _decode_plain_jpeg(data, max_pixels, min_side_px):
        return plain
    picture = _probe(data, max_pixels)
    width_px, height_px = picture.size
    try:
        pixels, orientation = _pixels(picture, data, min_side_px), _orientation(picture)
        return Stored(pixels, orientation, (width_px, height_px) if orientation < 5 else (height_px, width_px))
    except MemoryError:
        raise
    except Exception as error:
        if PILLOWS_MEMORY_ERROR in str(error):
            raise MemoryError(str(error)) from error
        if picture.format in ("JPEG", "MPO") and (process := unusual_process(data)):
            raise DecodeError(
                f"{process} JPEG, which viewers can't show; convert it to an ordinary JPEG or PNG"
            ) from error
        raise DecodeError(f"{picture.format} can't be decoded: {type(error).__name__}: {error}") from error


def _decode_plain_jpeg(data: bytes, max_pixels: int, min_side_px: int | None) -> Stored | None:
    """Decode a JPEG that needs nothing of Pillow. If it is another picture, or an error, Pillow has a closer look."""
    header = plain_header(data)
    if header is None or header.width_px * header.height_px > max_pixels or not _has_end(data, header.end):
        return None
    size_px = header.width_px, header.height_px
    if _pays(size_px, min_side_px):
        return None
    with suppress(RuntimeError):
        return Stored(_decode_with_torchvision(data), 1, size_px)
    return None


def _has_end(data: bytes, start: int) -> bool:
    """Is the mark of a JPEG's end there? If zeros follow a cut, libjpeg sees a gray picture and no error.

    Args:
        data: the file.
        start: the end of its header, which may hold a mark of its own.
    """
    return data.rfind(END_OF_IMAGE, start) >= 0


def _pays(size_px: tuple[int, int], min_side_px: int | None) -> bool:
    """Does decoding at a fraction save time, and keep enough pixels?"""
    return min_side_px is not None and min(size_px) >= WORTHWHILE_SCALE * min_side_px


def turn(image: Tensor, orientation: int) -> Tensor:
    """Turn a stored image (C, H, W) upright, by an EXIF orientation of 1 to 8. From 5 on, height and width change places."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    mirrored = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation)
    return image.flip(mirrored) if mirrored else image


def _probe(data: bytes, max_pixels: int) -> ImageFile:
    """Return the picture with its header read and no pixel decoded yet."""
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # Pillow refuses above twice this; it sees pictures in pictures too.
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DecodeError(f"more pixels than max_pixels = {max_pixels}: {error}") from error
    except UnidentifiedImageError as error:
        if kind := name_kind(data):
            raise DecodeError(f"this is {kind}") from error
        raise DecodeError("the bytes are of no known image format, or of a kind of it that is not read") from error
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(f"the header is broken: {type(error).__name__}: {error}") from error
    for name in XMP:  # else Pillow turns a TIFF by it
        picture.info.pop(name, None)
    width_px, height_px = picture.size
    if width_px * height_px > max_pixels:
        raise DecodeError(f"{width_px}×{height_px} pixels are more than max_pixels = {max_pixels}")
    return picture


def _orientation(picture: ImageFile) -> int:
    """Return a picture's EXIF orientation. It is 1, which is upright, if the picture has none, or an invalid one."""
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, struct.error):  # An EXIF block that can't be read does not make the picture worse.
        return 1
    return int(found) if found in range(1, 9) else 1


def _pixels(picture: ImageFile, data: bytes, min_side_px: int | None) -> Tensor:
    if picture.format in ("JPEG", "MPO"):
        assert picture.fp is not None
        if not _has_end(data, picture.fp.tell()):
            raise EOFError("the mark of its end is missing")
        if picture.mode in ("RGB", "L"):
            if min_side_px and _pays(picture.size, min_side_px):
                with suppress(OSError):  # What can't be decoded at a fraction may be decoded whole.
                    return _decode_at_fraction(data, min_side_px)
            with suppress(RuntimeError):  # Pillow has the last word, and the better error message.
                return _decode_with_torchvision(data)
    if picture.format == "PNG":  # Pillow itself passes over the checksums of pixels.
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
    return torch.from_numpy(_decode_with_pillow(picture)).permute(2, 0, 1)


def _decode_with_torchvision(data: bytes) -> Tensor:
    """Decode a JPEG, for speed. No other format is safe: torchvision ends the process at some PNGs, and is silently wrong on others."""
    return decode_jpeg(torch.frombuffer(data, dtype=torch.uint8))


def _decode_at_fraction(data: bytes, min_side_px: int) -> Tensor:
    """Decode a JPEG at the smallest fraction that keeps both sides, by libjpeg's scaled DCT, which torchvision does not offer."""
    picture = Image.open(io.BytesIO(data), formats=["JPEG"])
    picture.draft(None, (min_side_px, min_side_px))
    return torch.from_numpy(_to_rgb(picture)).permute(2, 0, 1)


def _decode_with_pillow(picture: ImageFile) -> NDArray[np.uint8]:
    """Return the decoded frame on a white canvas, (H, W, 3), made band by band."""
    _mend_transparency(picture)
    has_alpha = not _is_alpha_unused(picture)
    frame = picture.tile[0][1] if picture.format == "GIF" and picture.tile else None  # It may be smaller than its GIF.
    picture.load()
    width_px, height_px = picture.size
    left, top, right, bottom = frame or (0, 0, width_px, height_px)
    black_and_white = _black_and_white(picture) if picture.mode.startswith(("I", "F")) else None
    canvas = np.full((height_px, width_px, 3), 255, np.uint8)
    num_rows = max(1, BAND_PIXELS // width_px)
    for start in range(top, bottom, num_rows):
        end = min(start + num_rows, bottom)
        band = picture.crop((left, start, right, end))
        if black_and_white:
            band = _to_eight_bits(band, *black_and_white)
        canvas[start:end, left:right] = _to_rgb(band if has_alpha else band.convert("RGB"))
    return canvas


def _is_alpha_unused(picture: ImageFile) -> bool:
    """Is the fourth byte of a 32-bit BMP unused? It is alpha or nothing, and viewers treat zeros everywhere as nothing."""
    return picture.format == "BMP" and picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (0, 0)


def _mend_transparency(picture: ImageFile) -> None:
    """Scale the transparent colour of a PNG. Pillow scales the pixels of some PNGs to eight bits, and forgets this colour."""
    transparent = picture.info.get("transparency")
    if picture.format == "PNG" and picture.tile and transparent is not None:
        match picture.tile[0][3]:
            case "L;2":
                picture.info["transparency"] = transparent * 85
            case "L;4":
                picture.info["transparency"] = transparent * 17
            case "RGB;16B":
                picture.info["transparency"] = tuple(value >> 8 for value in transparent)


def _black_and_white(picture: Image.Image) -> tuple[float, float]:
    """Return the values that are black and white in gray of more than eight bits. 32 bits have no agreed range: the extremes are used."""
    tags = getattr(picture, "tag_v2", {})  # TIFF's
    if picture.mode in ("I", "F") and picture.format != "PNG":
        extremes: Any = picture.getextrema()
        black, white = extremes
        if black < 0 and tags.get(SAMPLE_FORMAT, (1,))[0] == UNSIGNED:
            raise ValueError("its values need all of 32 bits")  # Pillow reads them as negative values.
    else:
        black, white = 0, 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    return (white, black) if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else (black, white)


def _to_eight_bits(band: Image.Image, black: float, white: float) -> Image.Image:
    values = np.asarray(band)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are no finite numbers")
    scaled = np.rint((values.astype(np.float64) - black) * (255 / (white - black or 1)))
    scaled[values == band.info.get("transparency")] = 255
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))


def _to_rgb(band: Image.Image) -> NDArray[np.uint8]:
    """Convert a band to RGB, (H, W, 3). Transparent pixels are shown on white."""
    if band.has_transparency_data:
        layer = band.convert("LA" if band.mode == "La" else "RGBA").convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
