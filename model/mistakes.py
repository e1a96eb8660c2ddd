"""What a detector got wrong, object by object, in the words that people use for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from model.average_precision import Curve, match_label
from model.boxes import pairwise_iou
from model.example import Truth
from model.postprocess import Detections

NEAR_IOU = 0.1
"""Overlap from which a box is taken to be meant for an object. Source: Bolya et al. 2020 (TIDE), section 2.2."""

MistakeKind = Literal["false_positive", "wrong_class", "poorly_placed", "missed"]


@dataclass(frozen=True)
class Mistake:
    """A wrong detection, or an object that has none.

    image: index; score: of the detection, 0 for a missed object; detection, object: indices in the image, None where
    there is none: nothing was found, or there is nothing to find.
    """

    kind: MistakeKind
    image: int
    score: float
    detection: int | None
    object: int | None


def best_score(curve: Curve) -> float:
    """The score from which on detections are best kept: there, F1 is highest. 1 where nothing is right."""
    if not len(curve.scores) or not curve.precision.any():
        return 1.0
    f1 = 2 * curve.precision * curve.recall / (curve.precision + curve.recall).clamp(min=1e-12)
    return float(curve.scores[f1.argmax()])


def find_mistakes(
    found: Sequence[Detections], truths: Sequence[Truth], min_scores: Tensor, match_iou: float = 0.5
) -> list[Mistake]:
    """All mistakes, the most confident detections first, then missed objects from the largest to the smallest.

    Right is what counts as right in average precision. A wrong detection is *poorly placed* when the object of its
    class that it overlaps most has no right one, and the overlap is above `NEAR_IOU`; else of the *wrong class* when
    it overlaps an object of another class by more than `match_iou`; else a *false positive*. *Missed* are objects that
    none of these stands for. Difficult objects and crowds are never missed, nor wrong what is matched to them.

    Args:
        found: detections of each image.
        truths: objects of the same images in the same order.
        min_scores: (L + 1,) for each label; detections below it do not count, neither as wrong nor as found.
        match_iou: overlap from which a detection counts.
    """
    mistakes = []
    for image, (detections, truth) in enumerate(zip(found, truths, strict=True)):
        mistakes += _in_image(image, detections, truth, min_scores, match_iou)
    areas = [truth.areas for truth in truths]
    return sorted(mistakes, key=lambda m: (-m.score, 0.0 if m.object is None else -float(areas[m.image][m.object])))


def _in_image(image: int, found: Detections, truth: Truth, min_scores: Tensor, match_iou: float) -> list[Mistake]:
    """As `find_mistakes`, in no set order."""
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
    """The objects that are rightly found, and the detections that are wrong."""
    is_kept = found.scores >= min_scores[found.labels]
    right: set[int] = set()
    wrong: list[int] = []
    for label in sorted(set(found.labels[is_kept].tolist())):
        matched = match_label(found, truth, label, match_iou)
        is_counted = is_kept[matched.indices]
        right |= set(matched.objects[is_counted & (matched.outcome == 1)].tolist())
        wrong += matched.indices[is_counted & (matched.outcome == 0)].tolist()
    return right, wrong


def _explain(
    overlaps: Tensor, is_same_class: Tensor, right: set[int], match_iou: float
) -> tuple[MistakeKind, int | None]:
    """What a wrong detection is, and the object that it stands for; overlaps: (N,) with the image's objects."""
    if len(overlaps) == 0:
        return "false_positive", None
    same, other = overlaps * is_same_class, overlaps * ~is_same_class
    if same.max() > NEAR_IOU and int(same.argmax()) not in right:
        return "poorly_placed", int(same.argmax())
    if other.max() > match_iou:
        return "wrong_class", int(other.argmax())
    return "false_positive", None
