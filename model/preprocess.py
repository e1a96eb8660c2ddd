"""The conversion of pixels to the network's input, the same in training and inference."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import Preprocessing


def resize(image: Tensor, size_px: int | tuple[int, int]) -> Tensor:
    """Resize an image, to the network's square input as a rule.

    Args:
        image: (3, H, W) uint8 RGB; fastest when its memory is channels-last, as `decode_jpeg` returns it.
        size_px: the wanted side, or height and width.

    Returns:
        (3, height, width) uint8, antialiased bilinear. The aspect ratio is not kept: SSD's training does the same.
    """
    size = (size_px, size_px) if isinstance(size_px, int) else size_px
    # After a plain unsqueeze, torch would not see that memory is channels-last, and would make a planar result.
    # torch 2.14.1 fails on planar memory if a single pixel is wanted.
    batch = image.permute(1, 2, 0).contiguous().unsqueeze(0).permute(0, 3, 1, 2)
    return F.interpolate(batch, size, mode="bilinear", antialias=True).squeeze(0)


def normalise(images: Tensor, preprocessing: Preprocessing, dtype: torch.dtype) -> Tensor:
    """Normalise (B, 3, H, W) RGB from 0 to 255, of any type, to the same shape in `dtype`, channels-last, on the images' device."""
    mean = torch.tensor(preprocessing.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=images.device).view(1, 3, 1, 1)
    scaled = (images.float() / 255 - mean) / std
    return scaled.to(dtype=dtype, memory_format=torch.channels_last)
