"""Labelled images for training and evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Truth:
    """The annotated objects of one image."""

    boxes_xyxy: Tensor
    """(N, 4) float, in pixels."""
    labels: Tensor
    """(N,) int64, from 1."""
    is_difficult: Tensor
    """(N,) bool: Pascal VOC's difficult objects. They are learned from, but neither missed nor wrong in a measurement."""
    is_crowd: Tensor
    """(N,) bool: COCO's crowds, regions of many objects. They are not learned from, and neither missed nor wrong."""
    areas: Tensor
    """(N,) float, in pixels: the area by which COCO calls an object small, medium or large."""


def plain_truth(boxes_xyxy: Tensor, labels: Tensor) -> Truth:
    """Return objects that are neither difficult nor crowds, each as large as its box."""
    none = torch.zeros(len(labels), dtype=torch.bool)
    return Truth(boxes_xyxy, labels, none, none, (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1))


@dataclass(frozen=True)
class Example:
    """An image with its annotated objects."""

    image: Tensor
    """(3, H, W) uint8 RGB, in the picture's size or at a fraction of it."""
    truth: Truth
    """The annotated objects of the image."""
    uri: str = ""
    """The place that the image was read from; empty where there is none."""
    original_px: tuple[int, int] | None = None
    """The width and height of the picture in the file, if it was decoded at a fraction of them."""

    @property
    def size_px(self) -> tuple[int, int]:
        """The width and height of the picture whose pixels the boxes count."""
        return self.original_px or (self.image.shape[2], self.image.shape[1])


Examples = Sequence[Example]
"""A sequence of examples by index; an example may be read or drawn only when it is asked for."""
