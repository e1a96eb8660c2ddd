"""The mistakes of a detector, object by object, under the names that people use for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.average_precision import match
from model.boxes import pairwise_covered, pairwise_iou
from model.example import Truth
from model.postprocess import Detections

SURE = 0.8
"""The score from which on a mistake of the detector may be a mistake of the labels."""
NEAR_IOU = 0.1
"""The overlap above which a box is treated as meant for an object. Source: Bolya et al. 2020 (TIDE), section 2.2."""

MistakeKind = Literal["false_positive", "wrong_class", "poorly_placed", "missed"]


@dataclass(frozen=True)
class Mistake:
    """A wrong detection, or an object that has no detection."""

    kind: MistakeKind
    image: int
    """The index of the image."""
    score: float
    """The score of the detection; 0 for a missed object."""
    detection: int | None
    """The index of the detection in the image; None where nothing was found."""
    object: int | None
    """The index of the object in the image; None where there is nothing to find."""


def find_mistakes(
    found: Sequence[Detections], truths: Sequence[Truth], min_scores: Tensor, match_iou: float = 0.5
) -> list[Mistake]:
    """Return all mistakes: the most confident detections first, then missed objects from the largest to the smallest.

    A detection is right if average precision counts it as right. A wrong one is of the first kind that fits:

    - *poorly placed*: the object of its class that it overlaps most has no right detection; their overlap is above
      `NEAR_IOU`.
    - *wrong class*: it overlaps an object of another class by more than `match_iou`.
    - *false positive*: nothing else fits.

    An object is *missed* if no right detection finds it, and no wrong one of the first two kinds belongs to it.
    Difficult objects and crowds are never missed, and detections that match them are never wrong.

    Args:
        found: the detections of each image.
        truths: the objects of the same images in the same order.
        min_scores: (L + 1,), the least score of each label; detections below it count neither as wrong nor as found.
        match_iou: the overlap above which a detection matches an object.
    """
    mistakes = []
    for image, (detections, truth) in enumerate(zip(found, truths, strict=True)):
        mistakes += _in_image(image, detections, truth, min_scores, match_iou)
    areas = [truth.areas for truth in truths]
    return sorted(mistakes, key=lambda m: (-m.score, 0.0 if m.object is None else -float(areas[m.image][m.object])))


def label_errors(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Return the mistakes that may be mistakes of the labels: the detector is sure of an object that is not annotated, or otherwise.

    Args:
        mistakes: all mistakes, the most confident first.
    """
    return [m for m in mistakes if m.kind in ("false_positive", "wrong_class") and m.score >= SURE]


def confusion_matrix(
    found: Sequence[Detections], truths: Sequence[Truth], min_scores: Tensor, match_iou: float = 0.5
) -> Tensor:
    """Count what objects are taken for.

    In each image, the most confident detection first takes the free object that it overlaps most, of whatever class. Difficult objects and
    crowds do not count, nor do detections that overlap a difficult one most, or that take nothing and lie in a crowd.

    Args:
        found: the detections of each image, best first.
        truths: the objects of the same images in the same order.
        min_scores: (L + 1,), the least score of each label; detections below it do not count.
        match_iou: the overlap above which a detection takes an object.

    Returns:
        (L + 1, L + 1) int64: a row for each annotated label, a column for each found one. Row 0 has detections of nothing, column 0 has
        missed objects.
    """
    counts = torch.zeros(len(min_scores), len(min_scores), dtype=torch.int64)
    for detections, truth in zip(found, truths, strict=True):
        is_kept = detections.scores >= min_scores[detections.labels]
        labels = detections.labels[is_kept].tolist()
        boxes = detections.boxes_xyxy[is_kept], truth.boxes_xyxy
        in_crowd = ((pairwise_covered(*boxes) > match_iou) & truth.is_crowd).any(dim=1).tolist()
        counted = (~truth.is_difficult).tolist()
        left = set((~truth.is_crowd).nonzero().flatten().tolist())
        for label, overlap, is_ignored in zip(labels, pairwise_iou(*boxes).tolist(), in_crowd, strict=True):
            taken = max(left, key=overlap.__getitem__, default=None)
            if taken is None or overlap[taken] <= match_iou:
                counts[0, label] += not is_ignored
            elif counted[taken]:
                counts[truth.labels[taken], label] += 1
                left.remove(taken)
        for missed in left:
            counts[truth.labels[missed], 0] += counted[missed]
    return counts


def _in_image(image: int, found: Detections, truth: Truth, min_scores: Tensor, match_iou: float) -> list[Mistake]:
    """Return the mistakes in one image, in no set order."""
    right, wrong = _judge(found, truth, min_scores, match_iou)
    counts = ~truth.is_difficult & ~truth.is_crowd
    overlaps = pairwise_iou(found.boxes_xyxy, truth.boxes_xyxy) * counts
    mistakes, met = [], set(right)
    for detection in wrong:
        kind, thing = _explain(overlaps[detection], truth.labels == found.labels[detection], right, match_iou)
        mistakes.append(Mistake(kind, image, float(found.scores[detection]), detection, thing))
        met |= {thing} if thing is not None else set()
    missed = set(counts.nonzero().flatten().tolist()) - met
    return mistakes + [Mistake("missed", image, 0.0, None, thing) for thing in sorted(missed)]


def _judge(found: Detections, truth: Truth, min_scores: Tensor, match_iou: float) -> tuple[set[int], list[int]]:
    """Return the objects that are found, and the detections that are wrong."""
    is_kept = found.scores >= min_scores[found.labels]
    matched = match(found, truth, match_iou)
    right = set(matched.objects[is_kept & (matched.outcome == 1)].tolist())
    return right, (is_kept & (matched.outcome == 0)).nonzero().flatten().tolist()


def _explain(
    overlaps: Tensor, is_same_class: Tensor, right: set[int], match_iou: float
) -> tuple[MistakeKind, int | None]:
    """Return the kind of a wrong detection, and the object that it belongs to.

    Args:
        overlaps: (N,), the overlaps (IoU) with the image's objects.
        is_same_class: (N,) bool, whether each object is of the detection's class.
        right: the objects that have a right detection.
        match_iou: the overlap above which a detection matches an object.
    """
    if len(overlaps) == 0:
        return "false_positive", None
    same, other = overlaps * is_same_class, overlaps * ~is_same_class
    if same.max() > NEAR_IOU and int(same.argmax()) not in right:
        return "poorly_placed", int(same.argmax())
    if other.max() > match_iou:
        return "wrong_class", int(other.argmax())
    return "false_positive", None
