"""The settings of a training that its data suggests: how far to zoom, which classes count more, and what small objects need."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Architecture
from pipeline.labelled.box_sizes import shares_xyxy
from pipeline.labelled.record import LabelledImage

MIN_OBJECTS = 50
"""The number of objects from which on they are measured."""
MAX_ZOOM_OUT, MIN_ZOOM_OUT = 4.0, 1.2
"""The limits of zooming out. The larger one is the paper's."""
MIN_CROP, MAX_CROP = 0.3, 0.8
"""The limits of a crop's sides. The smaller one is the paper's."""
RARE = 4
"""The times by which the most frequent class has more objects than a rare one."""
MAX_WEIGHT = 3.0
SMALL = 1.5
"""The times of the smallest default box up to which the objects of a class are small."""
LOW_MATCH_IOU = 0.4


@dataclass(frozen=True)
class Choice:
    """A setting that suits the data better than its default."""

    setting: str
    """The name of the setting in `TrainSettings`."""
    value: Any
    why: str
    """The measurement that suggests it, for people."""

    def __str__(self) -> str:
        value = self.value
        if isinstance(value, dict):
            value = ", ".join(f"{name}={weight}" for name, weight in value.items())
        return f"{self.setting}: {value}, as {self.why}"


def choose(images: Sequence[LabelledImage], architecture: Architecture) -> list[Choice]:
    """Return the settings that the images to learn from suggest; none from too few objects.

    Args:
        images: the cleaned images. Those without an annotated size are not measured.
        architecture: the architecture whose default boxes learn the objects.
    """
    sized = [(image, image.size_px) for image in images if image.size_px]
    single = [(image.only(~image.is_crowd), size_px) for image, size_px in sized]
    names = np.array([name for image, _ in single for name in image.class_names])
    if len(names) < MIN_OBJECTS:
        return []
    boxes = np.concatenate([shares_xyxy(image, size_px) for image, size_px in single])
    sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    medians = {name: float(np.median(sizes[names == name])) for name in np.unique(names).tolist()}
    return [*_zooms(sizes, names, medians), *_weights(names), *_matching(medians, architecture)]


def _zooms(sizes: NDArray[np.float64], names: NDArray[np.str_], medians: dict[str, float]) -> list[Choice]:
    """Return how far to zoom, so that objects come to be as small and as large as they are, and not much more."""
    low, high = np.quantile(sizes / np.array([medians[name] for name in names.tolist()]), [0.05, 0.95])
    zoom_out = round(float(np.clip(1 / max(low, 1e-6), MIN_ZOOM_OUT, MAX_ZOOM_OUT)), 1)
    crop = round(float(np.clip(1 / high, MIN_CROP, MAX_CROP)), 1)
    why = f"objects are {low:.2f} to {high:.2f} times as large as the median of their class"
    return [Choice("zoom_out_max", zoom_out, why), Choice("crop_min", crop, why)]


def _weights(names: NDArray[np.str_]) -> list[Choice]:
    counts = Counter(names.tolist())
    most, count = counts.most_common(1)[0]
    rare = {name: n for name, n in sorted(counts.items()) if count >= RARE * n}
    if not rare:
        return []
    weights = {name: round(min(MAX_WEIGHT, (count / n) ** 0.5), 1) for name, n in rare.items()}
    told = ", ".join(f"{name} {n:,}" for name, n in rare.items())
    return [Choice("class_weights", weights, f"these are rare beside {most} ({count:,} objects): {told}")]


def _matching(medians: dict[str, float], architecture: Architecture) -> list[Choice]:
    smallest = architecture.scales[0]
    small = [name for name, median in medians.items() if median < SMALL * smallest]
    if not small:
        return []
    side_px = architecture.image_size_px
    told = ", ".join(f"{name} {medians[name] * side_px:.0f}" for name in small)
    return [
        Choice(
            "match_iou",
            LOW_MATCH_IOU,
            f"these are small beside the smallest default box of {smallest * side_px:.0f} px: {told}",
        )
    ]
