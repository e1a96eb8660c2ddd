"""Average precision as Pascal VOC defines it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.boxes import pairwise_covered, pairwise_iou
from model.example import Truth
from model.postprocess import Detections


@dataclass(frozen=True)
class Curve:
    """Precision over recall: (D,) float64 each, an entry for each detection that counts, best first.

    scores: of the detection; recall and precision: of it and all better ones.
    """

    recall: Tensor
    precision: Tensor
    scores: Tensor


@dataclass(frozen=True)
class AveragePrecision:
    """One class: area under its curve, by both of VOC's rules; NaN, and a curve without entries, without objects."""

    all_points: float
    eleven_points: float
    num_objects: int
    curve: Curve


def average_precisions(
    found: Sequence[Detections], truths: Sequence[Truth], num_labels: int, match_iou: float = 0.5
) -> list[AveragePrecision]:
    """Average precision of each label from 1 to `num_labels`.

    A detection is right when its IoU with the object of its class that it overlaps most is above `match_iou` and no
    better-scored one took that object. Difficult objects count for nothing, nor do detections that match them, nor
    those that match nothing else and lie by more than `match_iou` of their area in a crowd.

    Args:
        found: detections of each image, best first.
        truths: objects of the same images in the same order.
        num_labels: classes without the background.
        match_iou: overlap from which a detection counts.

    Source: Everingham et al. 2010, section 4.2; eleven points as VOC2007, all points as VOC2010 and later.
    """
    return [_one_label(found, truths, label, match_iou) for label in range(1, num_labels + 1)]


def _one_label(found: Sequence[Detections], truths: Sequence[Truth], label: int, match_iou: float) -> AveragePrecision:
    num_objects = sum(int(((t.labels == label) & ~t.is_difficult & ~t.is_crowd).sum()) for t in truths)
    if num_objects == 0:
        nothing = torch.zeros(0, dtype=torch.float64)
        return AveragePrecision(float("nan"), float("nan"), 0, Curve(nothing, nothing, nothing))
    outcomes = [_outcomes(f, t, label, match_iou) for f, t in zip(found, truths, strict=True)]
    curve = _curve(torch.cat([scores for scores, _ in outcomes]), torch.cat([o for _, o in outcomes]), num_objects)
    # The best precision at this recall or any higher one: curves are read from the right.
    best = curve.precision.flip(0).cummax(0).values.flip(0) if len(curve.precision) else curve.precision
    steps = torch.diff(curve.recall, prepend=torch.zeros(1, dtype=torch.float64))
    eleven = [
        best[curve.recall >= point - 1e-12].max().item() if (curve.recall >= point - 1e-12).any() else 0.0
        for point in torch.linspace(0, 1, 11, dtype=torch.float64)
    ]
    return AveragePrecision(float((best * steps).sum()), sum(eleven) / 11, num_objects, curve)


def _curve(scores: Tensor, outcomes: Tensor, num_objects: int) -> Curve:
    """The curve of a label's detections in all images, given what `_outcomes` says of each."""
    order = scores.argsort(descending=True, stable=True)
    order = order[outcomes[order] >= 0]
    num_right = outcomes[order].double().cumsum(0)
    return Curve(num_right / num_objects, num_right / torch.arange(1, len(order) + 1), scores[order].double())


def _outcomes(found: Detections, truth: Truth, label: int, match_iou: float) -> tuple[Tensor, Tensor]:
    """Scores (D,) of one image's detections of a label, and what each is: 1 right, 0 wrong, -1 not counted."""
    mine, theirs = found.labels == label, truth.labels == label
    scores, boxes = found.scores[mine], found.boxes_xyxy[mine]
    in_crowd = (pairwise_covered(boxes, truth.boxes_xyxy[theirs & truth.is_crowd]) > match_iou).any(dim=1)
    outcome = -in_crowd.long()
    theirs = theirs & ~truth.is_crowd
    is_difficult = truth.is_difficult[theirs]
    if len(scores) == 0 or len(is_difficult) == 0:
        return scores, outcome
    best_iou, best_object = pairwise_iou(boxes, truth.boxes_xyxy[theirs]).max(dim=1)
    taken: set[int] = set()
    for index in scores.argsort(descending=True, stable=True).tolist():
        chosen = int(best_object[index])
        if best_iou[index] <= match_iou:
            continue
        if is_difficult[chosen]:
            outcome[index] = -1
        elif chosen not in taken:
            outcome[index] = 1
            taken.add(chosen)
    return scores, outcome
