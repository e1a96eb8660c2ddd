"""Mean average precision as Pascal VOC defines it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.boxes import pairwise_iou
from model.example import Truth
from model.postprocess import Detections


@dataclass(frozen=True)
class AveragePrecision:
    """One class: area under its precision-recall curve, by both of VOC's rules; NaN without objects."""

    all_points: float
    eleven_points: float
    num_objects: int


def average_precisions(
    found: Sequence[Detections], truths: Sequence[Truth], num_labels: int, match_iou: float = 0.5
) -> list[AveragePrecision]:
    """Average precision of each label from 1 to `num_labels`.

    A detection is right when its IoU with the object of its class that it overlaps most is above `match_iou` and no
    better-scored one took that object. Difficult objects count for nothing, nor do detections that match them.

    Args:
        found: detections of each image, best first.
        truths: objects of the same images in the same order.
        num_labels: classes without the background.
        match_iou: overlap from which a detection counts.

    Source: Everingham et al. 2010, section 4.2; eleven points as VOC2007, all points as VOC2010 and later.
    """
    return [_one_label(found, truths, label, match_iou) for label in range(1, num_labels + 1)]


def _one_label(found: Sequence[Detections], truths: Sequence[Truth], label: int, match_iou: float) -> AveragePrecision:
    num_objects = sum(int(((t.labels == label) & ~t.is_difficult).sum()) for t in truths)
    if num_objects == 0:
        return AveragePrecision(float("nan"), float("nan"), 0)
    outcomes = [_outcomes(f, t, label, match_iou) for f, t in zip(found, truths, strict=True)]
    scores = torch.cat([score for score, _ in outcomes])
    is_right = torch.cat([right for _, right in outcomes])[scores.argsort(descending=True, stable=True)]
    is_right = is_right[is_right >= 0].double()
    recall = is_right.cumsum(0) / num_objects
    precision = is_right.cumsum(0) / torch.arange(1, len(is_right) + 1)
    # The best precision at this recall or any higher one: curves are read from the right.
    precision = precision.flip(0).cummax(0).values.flip(0) if len(precision) else precision
    steps = torch.diff(recall, prepend=torch.zeros(1, dtype=torch.float64))
    eleven = [
        precision[recall >= point - 1e-12].max().item() if (recall >= point - 1e-12).any() else 0.0
        for point in torch.linspace(0, 1, 11, dtype=torch.float64)
    ]
    return AveragePrecision(float((precision * steps).sum()), sum(eleven) / 11, num_objects)


def _outcomes(found: Detections, truth: Truth, label: int, match_iou: float) -> tuple[Tensor, Tensor]:
    """Scores (D,) of one image's detections of a label, and what each is: 1 right, 0 wrong, -1 not counted."""
    mine, theirs = found.labels == label, truth.labels == label
    scores, is_difficult = found.scores[mine], truth.is_difficult[theirs]
    outcome = torch.zeros(len(scores), dtype=torch.int64)
    if len(scores) == 0 or len(is_difficult) == 0:
        return scores, outcome
    best_iou, best_object = pairwise_iou(found.boxes_xyxy[mine], truth.boxes_xyxy[theirs]).max(dim=1)
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
