"""The training objective: matching, hard negative mining, and the two losses."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.boxes import cxcywh_to_xyxy, encode_boxes, pairwise_iou, xyxy_to_cxcywh

NEGATIVES_A_POSITIVE = 3
"""The number of background boxes that count in the loss per matched box. Source: section 2.2, "Hard negative mining"."""


IGNORED = -1
"""The label of a crowd, or of an object that is too small to be seen."""
MIN_COVERAGE = 0.5
"""The share of a default box from which on it is ignored, if an ignored region covers it."""


@dataclass(frozen=True)
class Targets:
    """The objects of a batch, padded to the same count M."""

    boxes_xyxy: Tensor
    """(B, M, 4) float in [0, 1]."""
    labels: Tensor
    """(B, M) int64, from 1; 0 is padding, and `IGNORED` marks what is neither an object to learn nor background."""


@dataclass(frozen=True)
class Losses:
    """The two losses as scalars, per matched default box."""

    localization: Tensor
    """The smooth L1 loss of the offsets."""
    classification: Tensor
    """The cross entropy of the classes."""

    @property
    def total(self) -> Tensor:
        """Return the sum of both losses: the paper's alpha is 1."""
        return self.localization + self.classification


def match(targets: Targets, default_boxes: Tensor, match_iou: float = 0.5) -> tuple[Tensor, Tensor]:
    """Give each default box the object it learns, or background.

    A default box takes the object that it overlaps best, if by `match_iou` or more. Each object also takes a default
    box of its own, whatever the overlap. The pair that overlaps best comes first, then the best pair among the remaining
    objects and default boxes, and so on.

    A default box that learns no object is ignored if an ignored region covers half of it, overlaps it by `match_iou`, or overlaps no other
    default box more.

    Args:
        targets: the objects of B images.
        default_boxes: (A, 4) float, cxcywh in [0, 1].
        match_iou: the least overlap; the paper's unless given.

    Returns:
        boxes (B, A, 4) float xyxy (arbitrary where no object is learned) and labels (B, A) int64, 0 = background, or `IGNORED`.

    Source: section 2.2, "Matching strategy". Where two objects share their best default box: the authors' Caffe code.
    """
    default_xyxy = cxcywh_to_xyxy(default_boxes)
    matched = [
        _match_image(boxes[labels != 0], labels[labels != 0], default_boxes, default_xyxy, match_iou)
        for boxes, labels in zip(targets.boxes_xyxy, targets.labels, strict=True)
    ]
    boxes, labels = (torch.stack(parts) for parts in zip(*matched, strict=True))
    return boxes, labels


def _match_image(
    boxes_xyxy: Tensor, labels: Tensor, default_boxes: Tensor, default_xyxy: Tensor, match_iou: float
) -> tuple[Tensor, Tensor]:
    """Match one image's objects and ignored regions, (M, 4) and (M,); returns (A, 4) and (A,)."""
    if not len(labels):
        return torch.zeros_like(default_xyxy), labels.new_zeros(len(default_xyxy))
    overlaps, is_object = pairwise_iou(boxes_xyxy, default_xyxy), labels > 0  # (M, A)
    iou = overlaps.masked_fill(~is_object[:, None], -1)
    best_iou, best_object = iou.max(dim=0)
    if is_object.any():
        forced = _own_boxes(iou[is_object])
        best_object[forced] = is_object.nonzero()[:, 0]
        best_iou[forced] = 1
    learned = labels[best_object] * (best_iou >= match_iou)
    if not is_object.all():
        is_ignored = _ignored(overlaps[~is_object], boxes_xyxy[~is_object], default_boxes, match_iou)
        learned = learned.masked_fill(is_ignored & (learned <= 0), IGNORED)
    return boxes_xyxy[best_object], learned


def _ignored(iou: Tensor, boxes_xyxy: Tensor, default_boxes: Tensor, match_iou: float) -> Tensor:
    """Return (A,) bool: the default boxes that belong to an ignored region.

    Args:
        iou: (R, A), the overlaps of regions with default boxes.
        boxes_xyxy: (R, 4) float in [0, 1], the regions.
        default_boxes: (A, 4) float, cxcywh in [0, 1].
        match_iou: the overlap from which on a default box is ignored.
    """
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1)[:, None]
    of_default_boxes = default_boxes[:, 2:].prod(dim=1)
    coverage = iou * (areas + of_default_boxes) / (1 + iou) / of_default_boxes  # the intersection by the default box
    nearest = torch.zeros_like(iou, dtype=torch.bool).scatter_(1, iou.argmax(dim=1, keepdim=True), True)
    near = (iou >= match_iou) | (coverage >= MIN_COVERAGE) | (nearest & (iou > 0))
    return near.any(dim=0)


def _own_boxes(iou: Tensor) -> Tensor:
    """Give each object a default box that no other object has: (M, A) overlaps to (M,) int64."""
    best_iou, best_box = iou.max(dim=1)
    if len(set(best_box.tolist())) == len(best_box):
        return best_box
    left, is_given = iou.clone(), torch.zeros_like(best_box, dtype=torch.bool)
    for _ in range(len(iou)):
        chosen = best_iou.masked_fill(is_given, -torch.inf).argmax()
        is_given[chosen] = True
        left[:, best_box[chosen]] = -torch.inf
        clashing = ~is_given & (best_box == best_box[chosen])
        if clashing.any():
            best_iou[clashing], best_box[clashing] = left[clashing].max(dim=1)
    return best_box


def hard_negatives(cross_entropy: Tensor, labels: Tensor, min_negatives: int) -> Tensor:
    """Return the background boxes that are most confidently wrong, three per matched box of their image.

    Args:
        cross_entropy: (B, A) float, each default box's classification loss.
        labels: (B, A) int64, 0 = background, or `IGNORED`.
        min_negatives: the least number per image.

    Returns:
        (B, A) bool.
    """
    is_background = labels == 0
    losses = cross_entropy.detach().masked_fill(~is_background, -1)
    num_negatives = (NEGATIVES_A_POSITIVE * (labels > 0).sum(dim=1, keepdim=True)).clamp(min=min_negatives)
    most = min(int(num_negatives.max()), labels.shape[1])
    places = losses.topk(most, dim=1).indices
    is_chosen = torch.arange(most, device=labels.device) < num_negatives
    return torch.zeros_like(is_background).scatter_(1, places, is_chosen) & is_background


def multibox_loss(
    offsets: Tensor,
    logits: Tensor,
    matched: tuple[Tensor, Tensor],
    default_boxes: Tensor,
    num_matched: Tensor,
    class_weights: Tensor,
    min_negatives: int,
) -> Losses:
    """Return SSD's loss over images. Without `min_negatives` it is 0 when no image has an object.

    Args:
        offsets: (B, A, 4), from the localization heads.
        logits: (B, A, C), from the classification heads.
        matched: the boxes and labels that `match` returned; boxes have sides above 0.
        default_boxes: (A, 4) float, cxcywh in [0, 1].
        num_matched: the divisor of the sums: the number of matched default boxes of the whole batch, of which these
            images may be a part.
        class_weights: (C,) float, the factors of a default box's losses, by the class that it learns.
        min_negatives: the least number of background boxes per image that count.

    Source: Liu et al. 2016, section 2.2, equations 1 to 3.
    """
    boxes_xyxy, labels = matched
    is_positive = labels > 0
    wanted = encode_boxes(xyxy_to_cxcywh(boxes_xyxy), default_boxes)
    weights = class_weights[labels.clamp(min=0)]
    distances = F.smooth_l1_loss(offsets[is_positive].float(), wanted[is_positive], reduction="none").sum(dim=1)
    localization = (weights[is_positive] * distances).sum()
    cross_entropy = F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
    counted = is_positive | hard_negatives(cross_entropy, labels, min_negatives)
    return Losses(localization / num_matched, (weights * cross_entropy)[counted].sum() / num_matched)


def count_matched(labels: Tensor, min_negatives: int) -> Tensor:
    """Return the divisor of the losses: the number of matched default boxes.

    An image whose negatives are more than three per matched box counts as having a third as many matched boxes as negatives, so that a
    negative weighs the same everywhere.

    Args:
        labels: (B, A) int64, as `match` returns them.
        min_negatives: see `hard_negatives`.
    """
    return (labels > 0).sum(dim=1).clamp(min=min_negatives / NEGATIVES_A_POSITIVE).sum()
