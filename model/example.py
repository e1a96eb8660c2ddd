"""Labelled images, as training and evaluation take them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Truth:
    """What stands in one image, object by object.

    boxes_xyxy: (N, 4) float pixels; labels: (N,) int64 from 1; is_difficult: (N,) bool, Pascal VOC's: learned from, and
    neither missed nor wrong in a measurement; is_crowd: (N,) bool, COCO's: a region of many, not learned from either;
    areas: (N,) float pixels, of what COCO calls small, medium and large.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    is_difficult: Tensor
    is_crowd: Tensor
    areas: Tensor


def plain_truth(boxes_xyxy: Tensor, labels: Tensor) -> Truth:
    """Objects of which none is difficult or a crowd, each as large as its box."""
    none = torch.zeros(len(labels), dtype=torch.bool)
    return Truth(boxes_xyxy, labels, none, none, (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1))


@dataclass(frozen=True)
class Example:
    """An image, (3, H, W) uint8 RGB, what stands in it, and where it is from, if anywhere."""

    image: Tensor
    truth: Truth
    uri: str = ""


Examples = Sequence[Example]
"""Any number of examples by index; they may be read or drawn when asked for."""
