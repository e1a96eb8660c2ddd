"""Labelled images: the one record of all layouts, and what of it can be learned from."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model.example import Truth
from pipeline.errors import SettingError

Flaw = Literal["not_a_number", "without_area", "outside", "swapped", "clipped"]
"""What is wrong with a box: it is left out; where its corners are swapped, or it only reaches over the border, it is mended."""
ROUNDING_PX = 0.01
"""A border that is crossed by less is no flaw: shares of a side, written with few digits, become such pixels."""
SMALL_PX = 2
"""Sides of images in which a box within 0 to 1 may be of pixels."""
SHARES = "its boxes are within 0 to 1: shares of the picture's sides; multiply them by its width and height, for pixels are expected"


class DataError(SettingError):
    """A data set that can't be used: which file, and what is wrong in it."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image's objects.

    uri: of the image; size_px: its width and height as annotated, None where they are not; boxes_xyxy: (N, 4) float64
    pixels, 0-based, right and lower border outside; class_names: N; is_difficult, is_crowd: (N,) bool, as in `Truth`;
    areas: (N,) float64 pixels. Boxes are as annotated, NaN where no number was, until `clean` has seen them.
    """

    uri: str
    size_px: tuple[int, int] | None
    boxes_xyxy: NDArray[np.float64]
    class_names: tuple[str, ...]
    is_difficult: NDArray[np.bool_]
    is_crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    def only(self, kept: NDArray[np.bool_]) -> "LabelledImage":
        """The image with the objects that a (N,) mask keeps."""
        names = tuple(name for name, is_kept in zip(self.class_names, kept, strict=True) if is_kept)
        rest = (self.boxes_xyxy[kept], names, self.is_difficult[kept], self.is_crowd[kept], self.areas[kept])
        return LabelledImage(self.uri, self.size_px, *rest)


def find_flaws(image: LabelledImage) -> NDArray[np.str_]:
    """(N,): the `Flaw` of each box, or "".

    The annotated size tells "outside" and "clipped"; where there is none, the left and upper border do.
    """
    boxes, sides = _in_order(image.boxes_xyxy), _sides(image)
    low, high = boxes[:, :2], boxes[:, 2:]
    is_sound = {
        "not_a_number": np.isfinite(boxes),
        "without_area": high > low,
        "outside": (high > 0) & (low < sides),
        "swapped": boxes == image.boxes_xyxy,
        "clipped": (low >= -ROUNDING_PX) & (high <= sides + ROUNDING_PX),
    }
    return np.select([~sound.all(axis=1) for sound in is_sound.values()], list(is_sound), default="")


def _in_order(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes (N, 4) with the lower corner first."""
    corners = boxes_xyxy.reshape(-1, 2, 2)
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)


def _sides(image: LabelledImage) -> NDArray[np.float64]:
    return np.array(image.size_px or (np.inf, np.inf), dtype=np.float64)


def clean(images: Iterable[LabelledImage]) -> tuple[list[LabelledImage], Counter[Flaw]]:
    """The images with only boxes that can be learned from, clipped to the picture; and how many had which flaw.

    Raises:
        DataError: a coordinate is no number, or they are shares of the picture.
    """
    cleaned, counts = [], Counter[Flaw]()
    for image in images:
        flaws = find_flaws(image)
        if (flaws == "not_a_number").any():
            name = image.class_names[flaws.tolist().index("not_a_number")]
            raise DataError(f"{image.uri}: a box of class {name!r} has a coordinate that is no number")
        if is_of_shares(image):
            raise DataError(f"{image.uri}: {SHARES}")
        counts.update(flaws[flaws != ""].tolist())
        inside = image.only(np.isin(flaws, ("", "swapped", "clipped")))
        cleaned.append(replace(inside, boxes_xyxy=_in_order(inside.boxes_xyxy).clip(0, np.tile(_sides(image), 2))))
    return cleaned, counts


def is_of_shares(image: LabelledImage) -> bool:
    """Are an image's boxes shares of its sides, not pixels? So it is where all of them that have an area are within 0 to 1."""
    boxes = _in_order(image.boxes_xyxy)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    return len(boxes) > 0 and bool((boxes <= 1).all()) and min(_sides(image)) > SMALL_PX


def num_to_learn_from(images: Iterable[LabelledImage]) -> int:
    """Return the number of objects that a training learns from; crowds are none.

    Args:
        images: cleaned.
    """
    return sum(int((~image.is_crowd).sum()) for image in images)


def class_names(images: Iterable[LabelledImage]) -> tuple[str, ...]:
    """All classes that occur, sorted."""
    return tuple(sorted({name for image in images for name in image.class_names}))


def truths(images: Iterable[LabelledImage], names: Sequence[str]) -> Iterator[Truth]:
    """The objects of each image in tensors.

    Args:
        images: cleaned.
        names: the class at index i has label i + 1.

    Raises:
        DataError: an object is of no known class.
    """
    label_ids = {name: index for index, name in enumerate(names, start=1)}
    for image in images:
        for name in image.class_names:
            if name not in label_ids:
                raise DataError(f"{image.uri}: class {name!r} is none of {', '.join(names)}")
        yield Truth(
            torch.from_numpy(image.boxes_xyxy).float(),
            torch.tensor([label_ids[name] for name in image.class_names], dtype=torch.int64),
            torch.from_numpy(image.is_difficult),
            torch.from_numpy(image.is_crowd),
            torch.from_numpy(image.areas).float(),
        )
