"""The training objective: matching, hard negative mining, and the two losses."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.boxes import cxcywh_to_xyxy, encode_boxes, pairwise_iou, xyxy_to_cxcywh

NEGATIVES_A_POSITIVE = 3
"""The number of background boxes that count in the loss per matched box. Source: section 2.2, "Hard negative mining"."""


@dataclass(frozen=True)
class Targets:
    """The objects of a batch, padded to the same count M."""

    boxes_xyxy: Tensor
    """(B, M, 4) float in [0, 1]."""
    labels: Tensor
    """(B, M) int64, from 1; 0 is padding."""


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

    Args:
        targets: the objects of B images.
        default_boxes: (A, 4) float, cxcywh in [0, 1].
        match_iou: the least overlap; the paper's unless given.

    Returns:
        boxes (B, A, 4) float xyxy (arbitrary where background) and labels (B, A) int64, 0 = background.

    Source: section 2.2, "Matching strategy". Where two objects share their best default box: the authors' Caffe code.
    """
    is_object = targets.labels > 0
    if targets.labels.shape[1] == 0:
        shape = (targets.labels.shape[0], len(default_boxes))
        return default_boxes.new_zeros(*shape, 4), targets.labels.new_zeros(shape)
    iou = pairwise_iou(targets.boxes_xyxy, cxcywh_to_xyxy(default_boxes))  # (B, M, A)
    iou = iou.masked_fill(~is_object[:, :, None], -1)
    best_iou, best_object = iou.max(dim=1)
    for image, objects in enumerate(is_object.sum(dim=1).tolist()):
        forced = _own_boxes(iou[image, :objects])
        best_object[image, forced] = torch.arange(objects, device=forced.device)
        best_iou[image, forced] = 1
    labels = targets.labels.gather(1, best_object) * (best_iou >= match_iou)
    boxes = targets.boxes_xyxy.gather(1, best_object[:, :, None].expand(-1, -1, 4))
    return boxes, labels


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


def hard_negatives(cross_entropy: Tensor, labels: Tensor) -> Tensor:
    """Return the background boxes that are most confidently wrong, three per matched box of their image.

    Args:
        cross_entropy: (B, A) float, each default box's classification loss.
        labels: (B, A) int64, 0 = background.

    Returns:
        (B, A) bool.
    """
    is_positive = labels > 0
    losses = cross_entropy.detach().masked_fill(is_positive, -1)
    rank = losses.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < NEGATIVES_A_POSITIVE * is_positive.sum(dim=1, keepdim=True)) & ~is_positive


def multibox_loss(
    offsets: Tensor,
    logits: Tensor,
    matched: tuple[Tensor, Tensor],
    default_boxes: Tensor,
    num_matched: Tensor,
    class_weights: Tensor,
) -> Losses:
    """Return SSD's loss over images; 0 when no image has an object.

    Args:
        offsets: (B, A, 4), from the localization heads.
        logits: (B, A, C), from the classification heads.
        matched: the boxes and labels that `match` returned; boxes have sides above 0.
        default_boxes: (A, 4) float, cxcywh in [0, 1].
        num_matched: the divisor of the sums: the number of matched default boxes of the whole batch, of which these
            images may be a part.
        class_weights: (C,) float, the factors of a default box's losses, by the class that it learns.

    Source: Liu et al. 2016, section 2.2, equations 1 to 3.
    """
    boxes_xyxy, labels = matched
    is_positive = labels > 0
    wanted = encode_boxes(xyxy_to_cxcywh(boxes_xyxy), default_boxes)
    weights = class_weights[labels]
    distances = F.smooth_l1_loss(offsets[is_positive].float(), wanted[is_positive], reduction="none").sum(dim=1)
    localization = (weights[is_positive] * distances).sum()
    cross_entropy = F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    counted = is_positive | hard_negatives(cross_entropy, labels)
    return Losses(localization / num_matched, (weights * cross_entropy)[counted].sum() / num_matched)


def count_matched(labels: Tensor) -> Tensor:
    """Return the number of matched default boxes among labels of `match`."""
    return (labels > 0).sum()
