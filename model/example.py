"""Labelled images, as training and evaluation take them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Truth:
    """What stands in one image: boxes_xyxy (N, 4) float pixels; labels (N,) int64 from 1; is_difficult (N,) bool."""

    boxes_xyxy: Tensor
    labels: Tensor
    is_difficult: Tensor


@dataclass(frozen=True)
class Example:
    """An image, (3, H, W) uint8 RGB, and what stands in it."""

    image: Tensor
    truth: Truth


Examples = Sequence[Example]
"""Any number of examples by index; they may be read or drawn when asked for."""
