"""Box formats, overlap, and the coding of boxes as offsets from default boxes."""

import math

import torch
from torch import Tensor

CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
"""The divisors of the offsets, which give them a similar spread. Source: the authors' Caffe code."""

MAX_LOG_RATIO = math.log(1000 / 16)
"""The limit of a decoded log ratio, as in torchvision.

A decoded side is at most 62.5 times its default box's, which keeps exp() finite.
"""


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Convert (..., 4) corners to (..., 4) centre and size, in the same units."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Convert (..., 4) centre and size to (..., 4) corners, in the same units."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def pairwise_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Return the intersection over union of each pair; 0 where both boxes are empty.

    Args:
        a_xyxy: (..., N, 4) float, corners.
        b_xyxy: (..., M, 4) float, corners in the same units.

    Returns:
        (..., N, M) float in [0, 1].
    """
    intersection, areas_a, areas_b = _pairwise(a_xyxy, b_xyxy)
    return intersection / (areas_a + areas_b - intersection).clamp(min=1e-12)


def pairwise_covered(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Return the share of each first box's area that lies in each second box: (..., N, M) float in [0, 1].

    Args:
        a_xyxy: (..., N, 4) float, corners.
        b_xyxy: (..., M, 4) float, corners in the same units.
    """
    intersection, areas_a, _ = _pairwise(a_xyxy, b_xyxy)
    return intersection / areas_a.clamp(min=1e-12)


def _pairwise(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the areas of each pair's intersection (..., N, M), of the first boxes (..., N, 1) and of the second (..., 1, M)."""
    a, b = a_xyxy[..., :, None, :], b_xyxy[..., None, :, :]
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    areas_a, areas_b = ((boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (a, b))
    return sides.clamp(min=0).prod(dim=-1), areas_a, areas_b


def encode_boxes(boxes_cxcywh: Tensor, default_boxes: Tensor) -> Tensor:
    """Turn boxes into the offsets that the localization heads learn.

    Args:
        boxes_cxcywh: (..., A, 4) float in [0, 1], one per default box, with sides above 0.
        default_boxes: (A, 4) float, cxcywh in [0, 1].

    Returns:
        (..., A, 4) float, variance-scaled (dcx, dcy, dw, dh).

    Source: Liu et al. 2016, section 2.2, equation 2.
    """
    centre = (boxes_cxcywh[..., :2] - default_boxes[..., :2]) / default_boxes[..., 2:] / CENTRE_VARIANCE
    size = torch.log(boxes_cxcywh[..., 2:] / default_boxes[..., 2:]) / SIZE_VARIANCE
    return torch.cat((centre, size), dim=-1)


def decode_boxes(offsets: Tensor, default_boxes: Tensor) -> Tensor:
    """Turn predicted offsets into boxes.

    Args:
        offsets: (..., A, 4) float, variance-scaled (dcx, dcy, dw, dh).
        default_boxes: (A, 4) float, cxcywh in [0, 1].

    Returns:
        (..., A, 4) float, xyxy in [0, 1], not clipped.

    Source: Liu et al. 2016, section 2.2, equation 2, inverted.
    """
    centre = default_boxes[..., :2] + offsets[..., :2] * CENTRE_VARIANCE * default_boxes[..., 2:]
    log_ratio = (offsets[..., 2:] * SIZE_VARIANCE).clamp(max=MAX_LOG_RATIO)
    return cxcywh_to_xyxy(torch.cat((centre, default_boxes[..., 2:] * log_ratio.exp()), dim=-1))
