"""Mean average precision as COCO defines it, computed by faster-coco-eval: COCO's own evaluation in C++."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from torch import Tensor

from model.example import Truth
from model.postprocess import Detections

NAN = float("nan")
OUT_OF_ALL_RANGES = 1e11
"""An area above all ranges that COCO counts.

An object of this area is neither missed nor wrong, and its IoU is computed like any other.
"""


@dataclass(frozen=True)
class CocoPrecision:
    """The mean average precision by COCO's definition, at several overlaps and sizes of objects.

    A mean is over the classes that have such objects. It is NaN where no class has any.
    """

    map: float
    """The mean over IoU 0.5 to 0.95."""
    map50: float
    """The mean at IoU 0.5."""
    map75: float
    """The mean at IoU 0.75."""
    map_small: float
    """The mean of objects below 32² pixels, over IoU 0.5 to 0.95."""
    map_medium: float
    """The mean of objects between 32² and 96² pixels, over IoU 0.5 to 0.95."""
    map_large: float
    """The mean of objects above 96² pixels, over IoU 0.5 to 0.95."""
    per_class: tuple[float, ...]
    """The average precision of each label from 1, over IoU 0.5 to 0.95."""


def coco_precision(found: Sequence[Detections], truths: Sequence[Truth], num_labels: int) -> CocoPrecision:
    """Return COCO's figures for the best 100 detections per image.

    Crowds follow COCO's rule: detections that lie in a crowd do not count, however many they are. A difficult object
    does not count, nor does the best detection that matches it.

    Args:
        found: the detections of each image, best first.
        truths: the objects of the same images in the same order.
        num_labels: the number of classes without the background.
    """
    images = [{"id": number} for number in range(len(truths))]
    classes = [{"id": label} for label in range(1, num_labels + 1)]
    objects = [entry for number, truth in enumerate(truths) for entry in _objects(number, truth)]
    detections = [entry for number, of_image in enumerate(found) for entry in _detections(number, of_image)]
    if not objects:
        return CocoPrecision(NAN, NAN, NAN, NAN, NAN, NAN, (NAN,) * num_labels)
    evaluation = COCOeval_faster(
        _dataset(images, classes, objects), _dataset(images, classes, detections), iouType="bbox"
    )
    evaluation.evaluate()
    evaluation.accumulate()
    # Axes: IoU thresholds, recalls, labels, areas (all, small, medium, large), limits of detections (the last is 100).
    precision = evaluation.eval["precision"][..., -1]
    return CocoPrecision(
        map=_mean(precision[..., 0]),
        map50=_mean(precision[0, ..., 0]),
        map75=_mean(precision[5, ..., 0]),
        map_small=_mean(precision[..., 1]),
        map_medium=_mean(precision[..., 2]),
        map_large=_mean(precision[..., 3]),
        per_class=tuple(_mean(precision[:, :, label, 0]) for label in range(num_labels)),
    )


def _mean(precision: NDArray[np.float64]) -> float:
    """Return the mean of the entries that have objects; the others are -1."""
    counted = precision[precision >= 0]
    return float(counted.mean()) if counted.size else NAN


def _objects(number: int, truth: Truth) -> list[dict[str, Any]]:
    areas = truth.areas.double().masked_fill(truth.is_difficult & ~truth.is_crowd, OUT_OF_ALL_RANGES)
    entries = _entries(number, truth.boxes_xyxy, truth.labels, areas)
    return [entry | {"iscrowd": int(crowd)} for entry, crowd in zip(entries, truth.is_crowd.tolist(), strict=True)]


def _detections(number: int, found: Detections) -> list[dict[str, Any]]:
    areas = (found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]).prod(dim=1)
    entries = _entries(number, found.boxes_xyxy, found.labels, areas)
    return [entry | {"score": score} for entry, score in zip(entries, found.scores.tolist(), strict=True)]


def _entries(number: int, boxes_xyxy: Tensor, labels: Tensor, areas: Tensor) -> list[dict[str, Any]]:
    low, high = boxes_xyxy.double().chunk(2, dim=1)
    columns = zip(labels.tolist(), low.tolist(), (high - low).tolist(), areas.tolist(), strict=True)
    return [
        {"image_id": number, "category_id": label, "bbox": corner + sides, "area": area}
        for label, corner, sides, area in columns
    ]


def _dataset(images: list[dict[str, Any]], classes: list[dict[str, Any]], entries: list[dict[str, Any]]) -> COCO:
    """Return the library's data set. Its ids count from 1, because 0 means unmatched in the library."""
    dataset = COCO()
    annotations = [entry | {"id": number} for number, entry in enumerate(entries, start=1)]
    dataset.dataset = {"images": images, "categories": classes, "annotations": annotations}
    dataset.createIndex()
    return dataset
