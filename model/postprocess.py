"""The conversion of the heads' raw outputs to detections: thresholds, the best of each class, non-maximum suppression."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.boxes import decode_boxes
from model.config import Thresholds
from model.torchvision_ops import nms


@dataclass(frozen=True)
class Detections:
    """The detections in one image, best first."""

    boxes_xyxy: Tensor
    """(D, 4) float32, in pixels."""
    scores: Tensor
    """(D,) float32."""
    labels: Tensor
    """(D,) int64, from 1 (0 is the background)."""


def postprocess(
    offsets: Tensor, logits: Tensor, default_boxes: Tensor, sizes_px: Tensor, thresholds: Thresholds
) -> list[Detections]:
    """Turn raw outputs into detections, as torchvision's SSD does, without a loop over classes.

    Args:
        offsets: (B, A, 4), variance-scaled.
        logits: (B, A, C), class 0 is the background.
        default_boxes: (A, 4) float, cxcywh in [0, 1].
        sizes_px: (B, 2) float, width and height of each image; the boxes are returned in these pixels.
        thresholds: see `Thresholds`.

    Returns:
        One `Detections` per image, with boxes clipped to it.
    """
    scores = logits.float().softmax(dim=-1)[..., 1:]
    boxes = decode_boxes(offsets.float(), default_boxes).clamp(0, 1)
    scales = torch.cat((sizes_px, sizes_px), dim=1)[:, None]
    per_image = zip(boxes, boxes * scales, scores, strict=True)
    return [_select(unit, pixels, image_scores, thresholds) for unit, pixels, image_scores in per_image]


def _select(unit_boxes: Tensor, boxes_px: Tensor, scores: Tensor, thresholds: Thresholds) -> Detections:
    """Return the detections of one image.

    Args:
        unit_boxes: (A, 4), xyxy in [0, 1].
        boxes_px: (A, 4), the same boxes in pixels.
        scores: (A, C - 1), without the background.
        thresholds: see `Thresholds`.
    """
    box, label = (scores > thresholds.score_thresh).nonzero(as_tuple=True)
    score = scores[box, label]
    order = score.argsort(descending=True, stable=True)
    order = order[_rank_in_group(label[order]) < thresholds.topk_candidates]
    box, label, score = box[order], label[order], score[order]
    # Each class is moved to a place of its own, so that one suppression is enough for all; float64 keeps the boxes exact.
    apart = unit_boxes[box].double() + 2 * label[:, None]
    keep = nms(apart, score.double(), thresholds.nms_thresh)[: thresholds.detections_per_img]
    return Detections(boxes_px[box[keep]], score[keep], label[keep] + 1)


def _rank_in_group(group: Tensor) -> Tensor:
    """Return the number of earlier elements with the same value: (N,) int64 to (N,) int64; [5, 7, 5, 5] gives [0, 0, 1, 2]."""
    sorted_group, order = group.sort(stable=True)
    is_first = torch.ones_like(sorted_group, dtype=torch.bool)
    is_first[1:] = sorted_group[1:] != sorted_group[:-1]
    position = torch.arange(len(group), device=group.device)
    start = torch.where(is_first, position, 0).cummax(dim=0).values if len(group) else position
    return torch.empty_like(position).scatter_(0, order, position - start)
