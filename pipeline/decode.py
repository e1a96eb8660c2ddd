"""Image bytes to pixels, as a viewer shows them."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

MAX_PIXELS = 200_000_000
"""Pictures of more pixels are refused before they are decoded: 200 million take 600 MB as a JPEG, some GB as a PNG."""

Image.init()
FORMATS = tuple(name for name in Image.OPEN if name != "EPS")
"""What is opened: EPS is a program, which Pillow hands to Ghostscript."""


class DecodeError(ValueError):
    """The bytes are no picture that can be shown: what is wrong with them."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a picture.

    Args:
        data: a file's content, of any format that Pillow reads without another program.
        max_pixels: the most that are decoded.

    Returns:
        (3, H, W) uint8 RGB, EXIF orientation applied; the first frame of an animation; in channels-last memory,
        or what turning that by 90° leaves.

    Raises:
        DecodeError: empty, of no known format, broken, cut short, or too large.
    """
    if not data:
        raise DecodeError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's of large and odd pictures; torchvision's of its own deprecation.
        picture = _probe(data, max_pixels)
        if _torchvision_reads_it_right(picture):
            try:
                content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                decoded: Tensor = decode_image(content, mode=ImageReadMode.RGB, apply_exif_orientation=True)
                return decoded
            except RuntimeError:
                pass  # Pillow has the last word, and the better error message.
        return _decode_with_pillow(picture, data)


def _probe(data: bytes, max_pixels: int) -> Image.Image:
    """The picture with its header read and no pixel decoded yet."""
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # Pillow refuses above twice this; it sees pictures in pictures too.
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DecodeError(f"more pixels than max_pixels = {max_pixels}: {error}") from error
    except UnidentifiedImageError as error:
        raise DecodeError("the bytes are of no known image format") from error
    except Exception as error:
        raise DecodeError(f"the header is broken: {type(error).__name__}: {error}") from error
    width_px, height_px = picture.size
    if width_px * height_px > max_pixels:
        raise DecodeError(f"{width_px}×{height_px} pixels are more than max_pixels = {max_pixels}")
    return picture


def _torchvision_reads_it_right(picture: Image.Image) -> bool:
    """JPEG alone, for speed: it segfaults on a PNG with a wrong checksum, and is wrong in silence on other formats."""
    return picture.format in ("JPEG", "MPO") and picture.mode in ("RGB", "L")


def _decode_with_pillow(picture: Image.Image, data: bytes) -> Tensor:
    try:
        if picture.format == "PNG":  # Pillow itself passes over the checksums of pixels.
            Image.open(io.BytesIO(data), formats=["PNG"]).verify()
        ImageOps.exif_transpose(picture, in_place=True)
        pixels = np.array(_to_rgb(picture))
    except Exception as error:
        raise DecodeError(f"{picture.format} can't be decoded: {type(error).__name__}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Eight bits a channel; what is transparent is shown on white."""
    if picture.mode.startswith(("I", "F")):
        picture = _to_eight_bits(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit gray in equal steps; 32-bit and float, which have no agreed range, by their own extremes."""
    values = np.array(picture)
    if picture.mode.startswith("I;16") or (picture.format == "PNG" and picture.mode == "I"):
        if "transparency" in picture.info:
            values[values == picture.info["transparency"]] = 65_535
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite(high - low):
        raise ValueError("it holds values that are no finite numbers")
    return Image.fromarray((255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8))
