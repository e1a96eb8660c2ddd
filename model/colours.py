"""Photometric distortion as one affine map of colours.

It is a quarter of the work of converting each image to HSV and back.
"""

import math

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in a pixel's grey, as in torchvision; the first axis of YIQ."""
YIQ = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
"""The matrix that turns RGB into grey and two axes of hue. Source: the NTSC standard of 1953."""
RGB = torch.linalg.inv(YIQ)
"""The matrix that turns it back."""


def distort_colours(image: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue at random, each half the time.

    The order of channels is never changed, as in the authors' own settings. The ranges are those of torchvision's
    `RandomPhotometricDistort`. Brightness, contrast and saturation equal torchvision's, too, until a value leaves 0 to
    255: values are clipped once, at the end. Hue is turned in YIQ, where torchvision turns it in HSV: grey keeps its
    brightness, and strong colours change differently.

    Args:
        image: (3, H, W) uint8 RGB; fastest at the network's size, and with channels-last memory.

    Returns:
        The changed image, in the same shape. Random numbers come from torch's global generator.

    Source: Liu et al. 2016, section 2.2 "Data augmentation", and the authors' Caffe scripts.
    """
    brightness, contrast, saturation = _drawn(0.875, 1.125), _drawn(0.5, 1.5), _drawn(0.5, 1.5)
    return changed_colours(image, brightness, contrast, saturation, turns=_drawn(-0.05, 0.05, unchanged=0.0))


def changed_colours(image: Tensor, brightness: float, contrast: float, saturation: float, turns: float) -> Tensor:
    """Return a changed copy of an image.

    Args:
        image: (3, H, W) uint8 RGB.
        brightness, contrast, saturation: factors as in torchvision's `adjust_…`; 1 = unchanged.
        turns: the turn of the hue; 1 = once around.
    """
    pixels = image.permute(1, 2, 0).reshape(-1, 3).float()
    mean_grey = brightness * torch.dot(pixels.mean(dim=0), YIQ[0])
    matrix = brightness * contrast * _around_grey(saturation, turns)
    changed = torch.addmm((1 - contrast) * mean_grey, matrix, pixels.T)
    return changed.round_().clamp_(0, 255).to(torch.uint8).view(image.shape)


def _around_grey(saturation: float, turns: float) -> Tensor:
    """Return a (3, 3) matrix for RGB, which turns and stretches the plane of hue and leaves greys unchanged."""
    along, across = (saturation * part(2 * math.pi * turns) for part in (math.cos, math.sin))
    turned = torch.tensor([[1.0, 0.0, 0.0], [0.0, along, across], [0.0, -across, along]])
    matrix: Tensor = RGB @ turned @ YIQ
    return matrix


def _drawn(low: float, high: float, unchanged: float = 1.0) -> float:
    return torch.empty(()).uniform_(low, high).item() if is_half() else unchanged


def is_half() -> bool:
    """Draw a yes or a no."""
    return bool(torch.rand(()) < 0.5)
