"""Find what a filter shows of a part of the images, over arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.explore.build import COLUMN
from pipeline.explore.filters import Filter, Sort

Mask = NDArray[np.bool_]
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Part:
    """Images that follow each other, and their boxes."""

    ids: range
    """The numbers of the images."""
    images: Mapping[str, NDArray[Any]]
    """A value per image, by name."""
    boxes: Mapping[str, NDArray[Any]]
    """A value per box, by name. The boxes of an image follow each other, from the best score down."""


class Found:
    """The images and boxes of a part that a filter shows. Each property is computed when it is asked for.

    Args:
        part: the images and boxes.
        chosen: the filter.
        values: the values that numbers stand for, by column.
        with_text: the numbers of all images whose URI has the filter's text, in order.
    """

    def __init__(
        self, part: Part, chosen: Filter, values: Mapping[str, list[str]], with_text: NDArray[np.int32] | None
    ) -> None:
        self._part, self._chosen, self._values, self._with_text = part, chosen, values, with_text

    def with_filter(self, chosen: Filter) -> "Found":
        """Return what another filter shows of the same images, by the same text."""
        return Found(self._part, chosen, self._values, self._with_text)

    @cached_property
    def images(self) -> Mask:
        """The images that are shown, as a mask."""
        chosen, images = self._chosen, self._part.images
        mask: Mask = self._is(chosen.run, "run_id") if chosen.run else np.array(images["is_latest"])
        if chosen.model:
            mask &= self._is(chosen.model, "model_digest")
        if chosen.status:
            mask &= images["is_failed"] == (chosen.status == "failed")
        if chosen.first_date:
            mask &= images["run_date"] >= (chosen.first_date - EPOCH).days
        if chosen.last_date:
            mask &= images["run_date"] <= (chosen.last_date - EPOCH).days
        for name, value in chosen.columns.items():
            mask &= self._is(value, COLUMN + name)
        if self._with_text is not None:
            # Numbers of another type would copy the array.
            ends = np.array([self._part.ids.start, self._part.ids.stop], self._with_text.dtype)
            start, stop = np.searchsorted(self._with_text, ends)
            has_text = np.zeros(len(mask), np.bool_)
            has_text[self._with_text[start:stop] - self._part.ids.start] = True
            mask &= has_text
        least = chosen.min_boxes
        if least is None and chosen.is_about_boxes and chosen.max_boxes is None:
            least = 1
        if least is not None:
            mask &= self.num_boxes >= least
        if chosen.max_boxes is not None:
            mask &= self.num_boxes <= chosen.max_boxes
        return mask

    @cached_property
    def boxes(self) -> NDArray[np.intp]:
        """The numbers of the boxes that the filter is about, also those of other images."""
        chosen, boxes = self._chosen, self._part.boxes
        mask: Mask = boxes["score"] >= np.float32(chosen.min_score)
        if chosen.max_score < 1:
            mask &= boxes["score"] < np.float32(chosen.max_score)
        if chosen.min_size > 0:
            mask &= boxes["size"] >= np.float32(chosen.min_size)
        if chosen.max_size < 1:
            mask &= boxes["size"] < np.float32(chosen.max_size)
        if chosen.label:
            is_of_class = np.zeros(len(mask), np.bool_)
            for name in chosen.label:
                is_of_class |= boxes["label"] == self._code("label", name)
            mask &= is_of_class
        return np.flatnonzero(mask)

    @cached_property
    def num_boxes(self) -> NDArray[Any]:
        """The number of these boxes in each image."""
        if self._chosen.is_default:
            return self._part.images["num_boxes"]
        image_ids = self._part.boxes["image_id"].take(self.boxes)
        image_ids -= self._part.ids.start
        return np.bincount(image_ids, minlength=len(self._part.ids)).astype(np.int32)

    @cached_property
    def best(self) -> NDArray[np.float32]:
        """The best score of these boxes in each image, NaN where there is none."""
        if self._chosen.is_default:
            return self._part.images["best_score"]
        with_boxes = np.flatnonzero(self.num_boxes)
        first = (np.cumsum(self.num_boxes) - self.num_boxes).take(with_boxes)
        best = np.full(len(self._part.ids), np.nan, np.float32)
        best[with_boxes] = self._part.boxes["score"].take(self.boxes.take(first))
        return best

    def keys(self, sort: Sort) -> NDArray[Any]:
        """Return a number of four bytes per image, by which images are ordered."""
        if sort in ("name", "newest"):
            images = self._part.images
            return images["uri"] if sort == "name" else -images["run_date"]
        if sort in ("most_boxes", "fewest_boxes"):
            return -self.num_boxes if sort == "most_boxes" else self.num_boxes
        without_boxes_last = np.nan_to_num(-self.best if sort == "best" else self.best, nan=np.inf)
        return without_boxes_last

    @cached_property
    def boxes_of_images(self) -> NDArray[np.intp]:
        """The numbers of these boxes, without those of images that are not shown."""
        if self.images.all():
            return self.boxes
        return self.boxes[self.images.take(self._part.boxes["image_id"].take(self.boxes) - self._part.ids.start)]

    def histogram(self, name: str, num_values: int) -> NDArray[np.intp]:
        """Return how many boxes of the images that are shown have each value of a column of small numbers."""
        return np.bincount(self._part.boxes[name].take(self.boxes_of_images), minlength=num_values)

    def _is(self, value: str, name: str) -> Mask:
        """Return which images have a value in a column of numbers that stand for values."""
        return np.asarray(self._part.images[name] == self._code(name, value))

    def _code(self, name: str, value: str) -> int:
        """Return the number that stands for a value; -1 if there is no such value."""
        values = self._values[name]
        return values.index(value) if value in values else -1
