"""The labelled images: one record for all layouts, and the boxes of it that can be learned from."""

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
"""The flaw of a box. A box with swapped corners, or one that only reaches over the border, is mended. Other flawed boxes are left out."""
ROUNDING_PX = 0.01
"""The pixels by which a border may be crossed without a flaw. Shares of a side that are written with few digits become such pixels."""
SMALL_PX = 2
"""The shorter side of an image, in pixels, up to which a box within 0 to 1 may be in pixels."""
SHARES = "its boxes are within 0 to 1: shares of the picture's sides; multiply them by its width and height, for pixels are expected"


class DataError(SettingError):
    """A data set can't be used. The message names the file, and says what is wrong in it."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """The objects of one image."""

    uri: str
    """The URI of the image."""
    size_px: tuple[int, int] | None
    """The image's width and height as annotated; None if they are not annotated."""
    boxes_xyxy: NDArray[np.float64]
    """(N, 4) float64 pixels, 0-based, right and lower border outside.

    Boxes are as annotated until `clean` has treated them, with NaN for what is no number.
    """
    class_names: tuple[str, ...]
    """The class of each object, N names."""
    is_difficult: NDArray[np.bool_]
    """(N,) bool, see `Truth`."""
    is_crowd: NDArray[np.bool_]
    """(N,) bool, see `Truth`."""
    areas: NDArray[np.float64]
    """(N,) float64 pixels."""

    def only(self, kept: NDArray[np.bool_]) -> "LabelledImage":
        """Return the image with only the objects that a (N,) mask keeps."""
        names = tuple(name for name, is_kept in zip(self.class_names, kept, strict=True) if is_kept)
        rest = (self.boxes_xyxy[kept], names, self.is_difficult[kept], self.is_crowd[kept], self.areas[kept])
        return LabelledImage(self.uri, self.size_px, *rest)


def find_flaws(image: LabelledImage) -> NDArray[np.str_]:
    """Return the `Flaw` of each box, or "", as (N,).

    "outside" and "clipped" are checked against the annotated size. Without a size, only the left and upper border are checked.
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
    """Return boxes (N, 4) with the lower corner first."""
    corners = boxes_xyxy.reshape(-1, 2, 2)
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)


def _sides(image: LabelledImage) -> NDArray[np.float64]:
    return np.array(image.size_px or (np.inf, np.inf), dtype=np.float64)


def clean(images: Iterable[LabelledImage]) -> tuple[list[LabelledImage], Counter[Flaw]]:
    """Return the images with only the boxes that can be learned from, clipped to the picture, and the number of boxes per flaw.

    Raises:
        DataError: a coordinate is no number, or the boxes of an image are shares of the picture.
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
    """Are an image's boxes shares of its sides, not pixels? They are if all boxes that have an area are within 0 to 1."""
    boxes = _in_order(image.boxes_xyxy)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    return len(boxes) > 0 and bool((boxes <= 1).all()) and min(_sides(image)) > SMALL_PX


def num_to_learn_from(images: Iterable[LabelledImage]) -> int:
    """Return the number of objects that a training learns from. Crowds do not count.

    Args:
        images: the cleaned images.
    """
    return sum(int((~image.is_crowd).sum()) for image in images)


def class_names(images: Iterable[LabelledImage]) -> tuple[str, ...]:
    """Return all classes that occur, sorted."""
    return tuple(sorted({name for image in images for name in image.class_names}))


def truths(images: Iterable[LabelledImage], names: Sequence[str]) -> Iterator[Truth]:
    """Yield the objects of each image in tensors.

    Args:
        images: the cleaned images.
        names: the known classes. The class at index i has label i + 1.

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
