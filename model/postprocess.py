"""The conversion of the heads' raw outputs to detections: thresholds, the best of each class, non-maximum suppression."""

import math
from collections import defaultdict
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.boxes import decode_boxes
from model.config import Thresholds
from model.torchvision_ops import nms

MAX_TOGETHER = defaultdict(lambda: 1024, cuda=16_384)
"""The number of candidates that enter one suppression at first, which compares each with each: on a GPU, at once.

Images with few candidates share one. An image with more gets another with twice as many, if too few detections are left.
"""
ROUNDING = 1e-3
"""The tolerance of the first look at logits, so that rounding loses no candidate."""


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

    Most default boxes are background. Probabilities and boxes are computed only where a class may pass `score_thresh`.

    Args:
        offsets: (B, A, 4), variance-scaled.
        logits: (B, A, C), class 0 is the background.
        default_boxes: (A, 4) float, cxcywh in [0, 1].
        sizes_px: (B, 2) float, width and height of each image; the boxes are returned in these pixels.
        thresholds: see `Thresholds`.

    Returns:
        One `Detections` per image, with boxes clipped to it, on the CPU.
    """
    num_images = len(logits)
    image, box = _may_pass(logits, thresholds.score_thresh).nonzero(as_tuple=True)
    if num_images > 1 and len(image) > MAX_TOGETHER[logits.device.type]:
        half = num_images // 2
        first = postprocess(offsets[:half], logits[:half], default_boxes, sizes_px[:half], thresholds)
        return first + postprocess(offsets[half:], logits[half:], default_boxes, sizes_px[half:], thresholds)
    unit_boxes = decode_boxes(offsets[image, box].float(), default_boxes[box]).clamp(0, 1)
    scores = logits[image, box].float().softmax(dim=-1)[:, 1:]
    is_candidate = scores > thresholds.score_thresh
    if thresholds.min_scores:
        is_candidate &= scores >= scores.new_tensor(thresholds.min_scores)
    row, label = is_candidate.nonzero(as_tuple=True)
    candidates = Candidates(image, unit_boxes, row, label + 1, scores[row, label])
    kept = candidates.at(_keep(candidates, num_images, thresholds))
    image = kept.image[kept.row]
    boxes_px = kept.unit_boxes[kept.row] * torch.cat((sizes_px, sizes_px), dim=1)[image]
    counts = image.bincount(minlength=num_images).tolist()
    columns = (torch.split(column.cpu(), counts) for column in (boxes_px, kept.score, kept.label))
    return [Detections(*parts) for parts in zip(*columns, strict=True)]


def _may_pass(logits: Tensor, score_thresh: float) -> Tensor:
    """Return where a class may score above the threshold: (B, A) bool. A score is below exp(logit - background's logit)."""
    lead = logits[..., 1:].amax(dim=-1).float() - logits[..., 0].float()
    return lead > math.log(score_thresh) - ROUNDING if score_thresh else torch.ones_like(lead, dtype=torch.bool)


@dataclass(frozen=True)
class Candidates:
    """Pairs of a box and a class that pass the threshold, of several images."""

    image: Tensor
    """(S,) int64, each box's image, as its place in the batch."""
    unit_boxes: Tensor
    """(S, 4) float32, xyxy in [0, 1]."""
    row: Tensor
    """(N,) int64, each candidate's box, as its place among the boxes."""
    label: Tensor
    """(N,) int64, from 1."""
    score: Tensor
    """(N,) float32."""

    def at(self, index: Tensor) -> "Candidates":
        """Return the candidates at these places."""
        return replace(self, row=self.row[index], label=self.label[index], score=self.score[index])


def _keep(candidates: Candidates, num_images: int, thresholds: Thresholds) -> Tensor:
    """Return the places of the candidates that are detections, by image, best first.

    A candidate is suppressed only by a better one. So worse ones need no look once each image has all that may be kept.
    """
    num_first = MAX_TOGETHER[candidates.score.device.type]
    while True:
        first = _best(candidates.score, num_first)
        kept = first[_suppress(candidates.at(first), thresholds)]
        image = candidates.image[candidates.row[kept]]
        counts = image.bincount(minlength=num_images)
        if len(first) == len(candidates.score) or (counts >= thresholds.detections_per_img).all():
            break
        num_first *= 2
    order = image.argsort(stable=True)
    return kept[order[_rank_in_group(image[order]) < thresholds.detections_per_img]]


def _best(score: Tensor, num: int) -> Tensor:
    """Return the places of the best scores, best first: this many, and those that equal the last of them."""
    if len(score) <= num:
        return score.argsort(descending=True, stable=True)
    (places,) = (score >= score.topk(num).values[-1]).nonzero(as_tuple=True)
    return places[score[places].argsort(descending=True, stable=True)]


def _suppress(candidates: Candidates, thresholds: Thresholds) -> Tensor:
    """Return the places that non-maximum suppression keeps, of candidates in the order of their scores."""
    num_labels = int(candidates.label.max()) + 1 if len(candidates.label) else 1
    group = candidates.image[candidates.row] * num_labels + candidates.label
    (places,) = (_rank_in_group(group) < thresholds.topk_candidates).nonzero(as_tuple=True)
    # Each class of each image is moved to a place of its own, so that one suppression is enough; float64 keeps the boxes exact.
    apart = candidates.unit_boxes[candidates.row[places]].double() + 2 * group[places][:, None]
    return places[nms(apart, candidates.score[places].double(), thresholds.nms_thresh)]


def _rank_in_group(group: Tensor) -> Tensor:
    """Return the number of earlier elements with the same value: (N,) int64 to (N,) int64; [5, 7, 5, 5] gives [0, 0, 1, 2]."""
    sorted_group, order = group.sort(stable=True)
    is_first = torch.ones_like(sorted_group, dtype=torch.bool)
    is_first[1:] = sorted_group[1:] != sorted_group[:-1]
    position = torch.arange(len(group), device=group.device)
    start = torch.where(is_first, position, 0).cummax(dim=0).values if len(group) else position
    return torch.empty_like(position).scatter_(0, order, position - start)
