"""Image bytes to pixels, as a viewer shows them."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

MAX_PIXELS = 200_000_000
"""Pictures of more pixels are refused before they are decoded: 200 million take 600 MB."""


class DecodeError(ValueError):
    """The bytes are no picture that can be shown: what is wrong with them."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a picture.

    Args:
        data: a file's content, of any format that Pillow reads.
        max_pixels: the most that are decoded.

    Returns:
        (3, H, W) uint8 RGB, EXIF orientation applied; the first frame of an animation; in channels-last memory.

    Raises:
        DecodeError: empty, of no known format, broken, cut short, or too large.
    """
    if not data:
        raise DecodeError("the file is empty")
    picture = _probe(data, max_pixels)
    if _torchvision_reads_it_right(picture):
        try:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            decoded: Tensor = decode_image(content, mode=ImageReadMode.RGB, apply_exif_orientation=True)
            return decoded
        except RuntimeError:
            pass  # Pillow has the last word, and the better error message.
    return _decode_with_pillow(picture)


def _probe(data: bytes, max_pixels: int) -> Image.Image:
    """The picture with its header read and no pixel decoded yet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; the bound here is ours.
            picture = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise DecodeError("the bytes are of no known image format") from error
    except Exception as error:
        raise DecodeError(f"the header is broken: {type(error).__name__}: {error}") from error
    width_px, height_px = picture.size
    if width_px * height_px > max_pixels:
        raise DecodeError(f"{width_px}×{height_px} pixels are more than max_pixels = {max_pixels}")
    return picture


def _torchvision_reads_it_right(picture: Image.Image) -> bool:
    """JPEG and plain 8-bit PNG: on others it is wrong in silence (16 bits, all frames, orientation)."""
    if picture.format == "JPEG":
        return picture.mode in ("RGB", "L")
    return picture.format == "PNG" and picture.mode in ("RGB", "L") and "transparency" not in picture.info


def _decode_with_pillow(picture: Image.Image) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shown = ImageOps.exif_transpose(picture)
            pixels = np.array(_to_rgb(shown))
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
    return picture.convert("RGB")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit gray by its high byte; 32-bit and float, which have no agreed range, by their own extremes."""
    values = np.asarray(picture).astype(np.float64)
    if picture.mode.startswith("I;16") or (picture.format == "PNG" and picture.mode == "I"):
        return Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    low, high = np.nanmin(values), np.nanmax(values)
    return Image.fromarray((255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8))
