"""The objects as the network sees them: their size at its input, and how well its default boxes fit."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.boxes import cxcywh_to_xyxy, pairwise_iou
from model.config import Architecture
from model.default_boxes import default_boxes
from pipeline.labelled.record import LabelledImage

MATCH_IOU = 0.5
"""The overlap from which a default box learns an object. An object without such a box is learned by the box that fits it best."""
CHUNK = 256
"""The number of objects at a time. With SSD512's 24,564 default boxes, each of a few tensors then takes some 25 MB."""
QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}


def shares_xyxy(image: LabelledImage, size_px: tuple[int, int]) -> NDArray[np.float64]:
    """Return an image's boxes as shares of its sides: (N, 4) in [0, 1], which are the network's coordinates."""
    shares: NDArray[np.float64] = (image.boxes_xyxy / np.tile(np.array(size_px, dtype=np.float64), 2)).clip(0, 1)
    return shares


def best_overlaps(boxes_xyxy: NDArray[np.float64], architecture: Architecture) -> NDArray[np.float64]:
    """Return the IoU (N,) of each box (N, 4), in [0, 1] of the image, with the default box that fits it best."""
    defaults = cxcywh_to_xyxy(default_boxes(architecture))
    boxes, best = torch.from_numpy(boxes_xyxy).float(), torch.zeros(len(boxes_xyxy))
    for start in range(0, len(boxes), CHUNK):
        best[start : start + CHUNK] = pairwise_iou(boxes[start : start + CHUNK], defaults).max(dim=1).values
    return best.double().numpy()


def describe_sizes(
    boxes_xyxy: NDArray[np.float64], overlaps: NDArray[np.float64], image_size_px: int
) -> dict[str, Any]:
    """Return quantiles of sides, in pixels of the network's input, and of best overlaps, and the share of boxes without a match.

    Args:
        boxes_xyxy: (N, 4) in [0, 1] of the image.
        overlaps: (N,), from `best_overlaps`.
        image_size_px: the side of the network's input.
    """
    sides_px = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * image_size_px
    if not len(sides_px):
        return {"num_objects": 0}
    return {
        "num_objects": len(sides_px),
        "share_below_half": round(float((overlaps < MATCH_IOU).mean()), 4),
        "shorter_side_px": _quantiles(sides_px.min(axis=1)),
        "longer_side_px": _quantiles(sides_px.max(axis=1)),
        "best_overlap": _quantiles(overlaps),
    }


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, share)), 2) for name, share in QUANTILES.items()}
