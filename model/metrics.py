"""The quality of detections: COCO's and Pascal VOC's figures for the same images. It needs no network."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from model.average_precision import AveragePrecision, Curve, average_precisions
from model.coco_precision import CocoPrecision, coco_precision
from model.example import Truth
from model.postprocess import Detections


@dataclass(frozen=True)
class Metrics:
    """The results of a measurement."""

    num_images: int
    coco: CocoPrecision
    coco_per_class: dict[str, float]
    """COCO's average precision by name, for the classes that have objects."""
    voc: dict[str, AveragePrecision]
    """Pascal VOC's average precision by name, for the classes that have objects."""

    @property
    def curves(self) -> dict[str, Curve]:
        """Return the precision over recall at IoU 0.5 of each class."""
        return {name: precision.curve for name, precision in self.voc.items()}

    def summary(self) -> dict[str, Any]:
        """Return the numbers that people compare, for JSON; None where there is no object to measure on.

        `map`… are COCO's. `voc_map_…` and `per_class` are Pascal VOC's at IoU 0.5; `per_class` is over all points.
        `per_class_map` is COCO's over IoU 0.5 to 0.95. `best_scores` are the least scores to keep, at which F1 is highest.
        """
        coco, voc = self.coco, self.voc
        return {
            "num_images": self.num_images,
            "map": _rounded(coco.map),
            "map50": _rounded(coco.map50),
            "map75": _rounded(coco.map75),
            "map_small": _rounded(coco.map_small),
            "map_medium": _rounded(coco.map_medium),
            "map_large": _rounded(coco.map_large),
            "voc_map_11pt": _rounded(_mean(precision.eleven_points for precision in voc.values())),
            "voc_map_all": _rounded(_mean(precision.all_points for precision in voc.values())),
            "per_class": {name: _rounded(precision.all_points) for name, precision in voc.items()},
            "per_class_map": {name: _rounded(value) for name, value in self.coco_per_class.items()},
            "best_scores": {name: _rounded_down(curve.best_score) for name, curve in self.curves.items()},
        }


def measure(found: Sequence[Detections], truths: Sequence[Truth], class_names: Sequence[str]) -> Metrics:
    """Compare detections with the annotated objects of the images.

    Args:
        found: the detections of each image, best first; boxes in its pixels.
        truths: the objects of the same images in the same order.
        class_names: the names of the classes; the class at index i has label i + 1.
    """
    voc = dict(zip(class_names, average_precisions(found, truths, len(class_names)), strict=True))
    coco = coco_precision(found, truths, len(class_names))
    return Metrics(
        num_images=len(truths),
        coco=coco,
        coco_per_class={
            name: value for name, value in zip(class_names, coco.per_class, strict=True) if not math.isnan(value)
        },
        voc={name: precision for name, precision in voc.items() if precision.num_objects},
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else float("nan")


def _rounded_down(score: float) -> float:
    """Return a least score to keep with four digits, by which nothing is lost."""
    return math.floor(score * 10_000) / 10_000


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
