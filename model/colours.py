"""Photometric distortion as one affine map of colours.

It is a quarter of the work of converting each image to HSV and back.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in a pixel's grey, as in torchvision; the first axis of YIQ."""
YIQ = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
"""The matrix that turns RGB into grey and two axes of hue. Source: the NTSC standard of 1953."""
RGB = torch.linalg.inv(YIQ)
"""The matrix that turns it back."""


@dataclass(frozen=True)
class Distortion:
    """The change of the colours in a batch of images."""

    factors: Tensor
    """(B, 4) float: brightness, contrast and saturation, as factors of torchvision's `adjust_…`, and the turn of the hue, 1 = once around."""
    shown: Tensor
    """(B, 4) int64, xyxy: the pixels that are changed. The others are no picture, but its surroundings."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the changed images.

        Brightness, contrast and saturation equal torchvision's, until a value leaves 0 to 255: values are clipped once, at the end. Hue is
        turned in YIQ, where torchvision turns it in HSV: grey keeps its brightness, and strong colours change differently.

        Args:
            images: (B, 3, H, W) uint8 RGB, on any device.

        Returns:
            (B, 3, H, W) float from 0 to 255, on the same device.
        """
        device, (_, _, height_px, width_px) = images.device, images.shape
        brightness, contrast, saturation, turns = self.factors.to(device).unbind(1)
        left, top, right, bottom = self.shown.to(device)[:, :, None].unbind(1)
        column, row = torch.arange(width_px, device=device), torch.arange(height_px, device=device)
        is_shown = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None]
        is_shown = is_shown.flatten(1)[:, None]  # (B, 1, H·W)
        before = images.to(torch.float32, memory_format=torch.contiguous_format).flatten(2)
        mean = before @ is_shown.float().mT / is_shown.sum(dim=2, keepdim=True)  # (B, 3, 1)
        matrices = (brightness * contrast)[:, None, None] * _around_grey(saturation, turns)
        offsets = ((1 - contrast) * brightness)[:, None, None] * (YIQ[:1].to(device) @ mean)
        after = torch.baddbmm(offsets, matrices, before).clamp_(0, 255)
        return torch.where(is_shown, after, before).view(images.shape)


def draw_factors() -> Tensor:
    """Draw the factors of a `Distortion` for one image: (4,) float. Each of them changes something half the time.

    The order of channels is never changed, as in the authors' own settings. The ranges are those of torchvision's
    `RandomPhotometricDistort`. Random numbers come from torch's global generator.

    Source: Liu et al. 2016, section 2.2 "Data augmentation", and the authors' Caffe scripts.
    """
    return torch.tensor([_drawn(0.875, 1.125), _drawn(0.5, 1.5), _drawn(0.5, 1.5), _drawn(-0.05, 0.05, unchanged=0.0)])


def _around_grey(saturation: Tensor, turns: Tensor) -> Tensor:
    """Return (B, 3, 3) matrices for RGB, which turn and stretch the plane of hue and leave greys unchanged."""
    along, across = saturation * torch.cos(2 * math.pi * turns), saturation * torch.sin(2 * math.pi * turns)
    none = torch.zeros_like(along)
    rows = [none + 1, none, none, none, along, across, none, -across, along]
    turned = torch.stack(rows, dim=1).view(-1, 3, 3)
    matrices: Tensor = RGB.to(turned.device) @ turned @ YIQ.to(turned.device)
    return matrices


def _drawn(low: float, high: float, unchanged: float = 1.0) -> float:
    return torch.empty(()).uniform_(low, high).item() if is_half() else unchanged


def is_half() -> bool:
    """Draw a yes or a no."""
    return bool(torch.rand(()) < 0.5)
