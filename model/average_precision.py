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
class Matched:
    """One image's detections of one label, in their order.

    indices: (D,) int64, which of the image's detections; scores: (D,); outcome: (D,) int64, 1 right, 0 wrong, -1 not
    counted; objects: (D,) int64, which of the image's objects it finds, -1 where none.
    """

    indices: Tensor
    scores: Tensor
    outcome: Tensor
    objects: Tensor


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
    matched = [match_label(f, t, label, match_iou) for f, t in zip(found, truths, strict=True)]
    curve = _curve(torch.cat([m.scores for m in matched]), torch.cat([m.outcome for m in matched]), num_objects)
    # The best precision at this recall or any higher one: curves are read from the right.
    best = curve.precision.flip(0).cummax(0).values.flip(0) if len(curve.precision) else curve.precision
    steps = torch.diff(curve.recall, prepend=torch.zeros(1, dtype=torch.float64))
    eleven = [
        best[curve.recall >= point - 1e-12].max().item() if (curve.recall >= point - 1e-12).any() else 0.0
        for point in torch.linspace(0, 1, 11, dtype=torch.float64)
    ]
    return AveragePrecision(float((best * steps).sum()), sum(eleven) / 11, num_objects, curve)


def _curve(scores: Tensor, outcomes: Tensor, num_objects: int) -> Curve:
    """The curve of a label's detections in all images, given what `match_label` says of each."""
    order = scores.argsort(descending=True, stable=True)
    order = order[outcomes[order] >= 0]
    num_right = outcomes[order].double().cumsum(0)
    return Curve(num_right / num_objects, num_right / torch.arange(1, len(order) + 1), scores[order].double())


def match_label(found: Detections, truth: Truth, label: int, match_iou: float = 0.5) -> Matched:
    """Match one image's detections of a label with its objects, by the rule of `average_precisions`."""
    mine, is_theirs = (found.labels == label).nonzero().flatten(), truth.labels == label
    scores, boxes = found.scores[mine], found.boxes_xyxy[mine]
    in_crowd = (pairwise_covered(boxes, truth.boxes_xyxy[is_theirs & truth.is_crowd]) > match_iou).any(dim=1)
    matched = Matched(mine, scores, -in_crowd.long(), torch.full_like(mine, -1))
    theirs = (is_theirs & ~truth.is_crowd).nonzero().flatten()
    if len(mine) == 0 or len(theirs) == 0:
        return matched
    best_iou, best_object = pairwise_iou(boxes, truth.boxes_xyxy[theirs]).max(dim=1)
    taken: set[int] = set()
    for index in scores.argsort(descending=True, stable=True).tolist():
        chosen = int(theirs[best_object[index]])
        if best_iou[index] <= match_iou:
            continue
        if truth.is_difficult[chosen]:
            matched.outcome[index] = -1
        elif chosen not in taken:
            matched.outcome[index], matched.objects[index] = 1, chosen
            taken.add(chosen)
    return matched
