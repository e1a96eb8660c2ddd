"""The boxes of a copy, as arrays in the order of their images, and in each image from the best score down."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.explore.arrays import MappedFiles

Mask = NDArray[np.bool_]
FIRST = "first"
"""The array with the number of each image's first box, and at its end the number of all boxes."""
SIDES = ("xmin", "ymin", "xmax", "ymax")
TYPES: dict[str, type[Any]] = {
    "image_id": np.int32, "label": np.uint16, "score": np.float32, "score_bin": np.uint8, "size": np.float32,
} | dict.fromkeys(SIDES, np.float32)  # fmt: skip
"""The other arrays, and the types of their numbers. A label is the number of the class."""
CHUNK = 1 << 17
"""The number of images, or of boxes, that are looked at at a time: they stay in the processor's cache, and need little memory."""


class Boxes:
    """The arrays of boxes.

    Args:
        files: those of the copy.
    """

    def __init__(self, files: MappedFiles) -> None:
        self._columns = files.arrays("boxes")
        self._first = self._columns.pop(FIRST)
        self._num_images = len(self._first) - 1

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column of `TYPES`."""
        return self._columns[name]

    def count(self, chosen: Mask) -> NDArray[np.int32]:
        """Return the number of these boxes in each image."""
        counts = np.empty(self._num_images, np.int32)
        for images, part in self._parts():
            image_ids = self["image_id"][part].take(np.flatnonzero(chosen[part]))
            image_ids -= images.start
            counts[images] = np.bincount(image_ids, minlength=images.stop - images.start)
        return counts

    def best(self, chosen: Mask, counts: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the best score of these boxes in each image, NaN where there is none. The counts are what `count` returned."""
        best = np.full(self._num_images, np.nan, np.float32)
        for images, part in self._parts():
            ends = np.cumsum(counts[images])
            with_boxes = np.flatnonzero(counts[images])
            first = (ends - counts[images]).take(with_boxes)
            best[images][with_boxes] = self["score"][part].take(np.flatnonzero(chosen[part]).take(first))
        return best

    def histogram(self, name: str, chosen: Mask, num_values: int) -> NDArray[np.intp]:
        """Return how many of these boxes have each value of a column of small numbers."""
        counts = np.zeros(num_values, np.intp)
        for _, part in self._parts():
            counts += np.bincount(self[name][part].take(np.flatnonzero(chosen[part])), minlength=num_values)
        return counts

    def of_images(self, chosen: Mask) -> Mask:
        """Return the boxes of these images."""
        of_images: Mask = chosen.take(self["image_id"])
        return of_images

    def of_image(self, image_id: int, min_score: float, classes: list[str]) -> list[dict[str, Any]]:
        """Return the boxes of an image from a score on, the best first."""
        start, stop = self._first[image_id : image_id + 2]
        stop = start + np.count_nonzero(self["score"][start:stop] >= np.float32(min_score))
        columns = {name: self[name][start:stop].tolist() for name in ("label", "score", *SIDES)}
        columns["label"] = [classes[code] for code in columns["label"]]
        return [dict(zip(columns, box, strict=True)) for box in zip(*columns.values(), strict=True)]

    def labels(self, min_score: float) -> pa.Table:
        """Return the image and the class of each box from a score on: `image_id` and `label`."""
        chosen = self["score"] >= np.float32(min_score)
        return pa.table({name: self[name][chosen] for name in ("image_id", "label")})

    def _parts(self) -> Iterator[tuple[slice, slice]]:
        """Yield all images and their boxes in parts."""
        for start in range(0, self._num_images, CHUNK):
            images = slice(start, min(start + CHUNK, self._num_images))
            yield images, slice(int(self._first[images.start]), int(self._first[images.stop]))
