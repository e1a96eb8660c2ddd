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
    """The precision over recall of a label's detections.

    Each tensor is (D,) float64, with an entry for each detection that counts, best first.
    """

    recall: Tensor
    """The recall of this detection and all better ones."""
    precision: Tensor
    """The precision of this detection and all better ones."""
    scores: Tensor
    """The score of this detection."""

    @property
    def best_score(self) -> float:
        """Return the least score of detections to keep, at which F1 is highest; 1 where no detection is right."""
        if not len(self.scores) or not self.precision.any():
            return 1.0
        f1 = 2 * self.precision * self.recall / (self.precision + self.recall).clamp(min=1e-12)
        return float(self.scores[f1.argmax()])


@dataclass(frozen=True)
class Matched:
    """The detections of one label in one image, in their order, and the objects that they find."""

    indices: Tensor
    """(D,) int64: the index of each detection among all detections of the image."""
    scores: Tensor
    """(D,): the score of each detection."""
    outcome: Tensor
    """(D,) int64: 1 for a right detection, 0 for a wrong one, -1 for one that does not count."""
    objects: Tensor
    """(D,) int64: the index of the object that each detection finds among the image's objects, or -1."""


@dataclass(frozen=True)
class AveragePrecision:
    """The area under the curve of one class, by both of VOC's rules.

    Without objects, both areas are NaN, and the curve has no entries.
    """

    all_points: float
    eleven_points: float
    num_objects: int
    curve: Curve


def average_precisions(
    found: Sequence[Detections], truths: Sequence[Truth], num_labels: int, match_iou: float = 0.5
) -> list[AveragePrecision]:
    """Return the average precision of each label from 1 to `num_labels`.

    A detection is compared with the object of its class that it overlaps most. It is right when their IoU is above
    `match_iou` and no better-scored detection took that object. Difficult objects do not count, nor do detections that
    match them. A detection that matches nothing else does not count if more than `match_iou` of its area lies in a
    crowd.

    Args:
        found: the detections of each image, best first.
        truths: the objects of the same images in the same order.
        num_labels: the number of classes without the background.
        match_iou: the overlap above which a detection matches an object.

    Source: Everingham et al. 2010, section 4.2. The rule of eleven points is VOC2007's, that of all points VOC2010's
    and later.
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
    """Return the curve of a label's detections in all images, from the scores and outcomes of `match_label`."""
    order = scores.argsort(descending=True, stable=True)
    order = order[outcomes[order] >= 0]
    num_right = outcomes[order].double().cumsum(0)
    return Curve(num_right / num_objects, num_right / torch.arange(1, len(order) + 1), scores[order].double())


def match_label(found: Detections, truth: Truth, label: int, match_iou: float = 0.5) -> Matched:
    """Match one image's detections of a label with its objects, by the rule of `average_precisions`."""
    detected, is_labelled = (found.labels == label).nonzero().flatten(), truth.labels == label
    scores, boxes = found.scores[detected], found.boxes_xyxy[detected]
    in_crowd = (pairwise_covered(boxes, truth.boxes_xyxy[is_labelled & truth.is_crowd]) > match_iou).any(dim=1)
    matched = Matched(detected, scores, -in_crowd.long(), torch.full_like(detected, -1))
    objects = (is_labelled & ~truth.is_crowd).nonzero().flatten()
    if len(detected) == 0 or len(objects) == 0:
        return matched
    best_iou, best_object = pairwise_iou(boxes, truth.boxes_xyxy[objects]).max(dim=1)
    taken: set[int] = set()
    for index in scores.argsort(descending=True, stable=True).tolist():
        chosen = int(objects[best_object[index]])
        if best_iou[index] <= match_iou:
            continue
        if truth.is_difficult[chosen]:
            matched.outcome[index] = -1
        elif chosen not in taken:
            matched.outcome[index], matched.objects[index] = 1, chosen
            taken.add(chosen)
    return matched
