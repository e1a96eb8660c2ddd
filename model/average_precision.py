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
    """The outcome of each detection in one image, in their order, and the objects that they find."""

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
    none = torch.zeros(0, dtype=torch.int64)  # of no images
    labels, scores = (torch.cat([none, *(getattr(f, name) for f in found)]) for name in ("labels", "scores"))
    outcomes = torch.cat([none, *(match(f, t, match_iou).outcome for f, t in zip(found, truths, strict=True))])
    counted = torch.cat([none, *(t.labels[~t.is_difficult & ~t.is_crowd] for t in truths)])
    each = []
    for label in range(1, num_labels + 1):
        is_of_label = labels == label
        num_objects = int((counted == label).sum())
        each.append(_one_label(scores[is_of_label], outcomes[is_of_label], num_objects))
    return each


def _one_label(scores: Tensor, outcomes: Tensor, num_objects: int) -> AveragePrecision:
    """Return the average precision of a label, from the scores and outcomes of its detections in all images."""
    if num_objects == 0:
        nothing = torch.zeros(0, dtype=torch.float64)
        return AveragePrecision(float("nan"), float("nan"), 0, Curve(nothing, nothing, nothing))
    curve = _curve(scores, outcomes, num_objects)
    # The best precision at this recall or any higher one: curves are read from the right.
    best = curve.precision.flip(0).cummax(0).values.flip(0) if len(curve.precision) else curve.precision
    steps = torch.diff(curve.recall, prepend=torch.zeros(1, dtype=torch.float64))
    eleven = [
        best[curve.recall >= point - 1e-12].max().item() if (curve.recall >= point - 1e-12).any() else 0.0
        for point in torch.linspace(0, 1, 11, dtype=torch.float64)
    ]
    return AveragePrecision(float((best * steps).sum()), sum(eleven) / 11, num_objects, curve)


def _curve(scores: Tensor, outcomes: Tensor, num_objects: int) -> Curve:
    order = scores.argsort(descending=True, stable=True)
    order = order[outcomes[order] >= 0]
    num_right = outcomes[order].double().cumsum(0)
    return Curve(num_right / num_objects, num_right / torch.arange(1, len(order) + 1), scores[order].double())


def match(found: Detections, truth: Truth, match_iou: float = 0.5) -> Matched:
    """Match one image's detections with its objects, by the rule of `average_precisions`, all classes at once."""
    is_same = found.labels[:, None] == truth.labels
    in_crowd = (pairwise_covered(found.boxes_xyxy, truth.boxes_xyxy) > match_iou) & is_same & truth.is_crowd
    outcome, objects = -in_crowd.any(dim=1).long(), torch.full_like(found.labels, -1)
    overlaps = pairwise_iou(found.boxes_xyxy, truth.boxes_xyxy) * (is_same & ~truth.is_crowd)
    if not overlaps.numel():
        return Matched(outcome, objects)
    best_iou, best_object = overlaps.max(dim=1)
    (hits,) = (best_iou > match_iou).nonzero(as_tuple=True)
    outcome[hits[truth.is_difficult[best_object[hits]]]] = -1
    hits = hits[~truth.is_difficult[best_object[hits]]]
    hits = hits[found.scores[hits].argsort(descending=True, stable=True)]
    # Of the detections that choose an object, the best one is right.
    first = torch.full((len(truth.labels),), len(hits))
    first.scatter_reduce_(0, best_object[hits], torch.arange(len(hits)), "amin")
    (taken,) = (first < len(hits)).nonzero(as_tuple=True)
    right = hits[first[taken]]
    outcome[right], objects[right] = 1, taken
    return Matched(outcome, objects)
