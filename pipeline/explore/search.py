"""The search for the images and boxes that a filter shows: over all images, part by part, on all cores."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.explore.build import FIRST, NUM_SCORE_BINS, SIDES, VALUES
from pipeline.explore.compare import Shown
from pipeline.explore.files import MappedFiles
from pipeline.explore.filters import Filter
from pipeline.explore.found import EPOCH, Found, Mask, Part
from pipeline.machine import local_cores

MAX_BOXES_BAR = 20
"""The last bar of the histogram of boxes per image, which also has those with more."""
NUM_TOGETHER = 1 << 17
"""The number of images of a part: what is computed for them stays in the processor's cache, and needs little memory."""
Answer = TypeVar("Answer")
FindText = Callable[[str], NDArray[np.int32]]
"""A function that returns the numbers of the images whose URI has a text in it, in order."""


class Search:
    """The arrays of a copy.

    Args:
        folder: the folder of the copy.
        files: those of this folder.
        find_text: searches the URIs.
    """

    def __init__(self, folder: Path, files: MappedFiles, find_text: FindText) -> None:
        self._images, self._boxes = files.arrays("images"), files.arrays("boxes")
        self._first = self._boxes.pop(FIRST)
        num_images = len(self._first) - 1
        starts = range(0, max(1, num_images), NUM_TOGETHER)
        self._parts = [self._part(range(start, min(start + NUM_TOGETHER, num_images))) for start in starts]
        dates = self._images["run_date"]
        self._dates = range(int(dates.min()), int(dates.max()) + 1) if num_images else range(1)
        self.values: dict[str, list[str]] = msgspec.json.decode((folder / VALUES).read_bytes())
        # A page and its histograms ask for the same text. The answer to a text may have four bytes per image.
        self._find_text = lru_cache(maxsize=2)(find_text)
        self._threads = ThreadPoolExecutor(local_cores(), thread_name_prefix="search")

    def page(self, chosen: Filter, offset: int, num_images: int) -> list[tuple[int, int]]:
        """Return the numbers of the images of a page, in order, and how many boxes of each the filter is about."""
        stop, is_reversed = offset + num_images, chosen.sort == "newest"  # of one date, the last one first

        def first_of(found: Found, part: Part) -> tuple[NDArray[Any], ...]:
            ids = np.flatnonzero(found.images)[:: -1 if is_reversed else 1]
            keys = found.keys(chosen.sort)[ids]
            kept = smallest(keys, stop)
            ids, keys = ids[kept], keys[kept]
            return keys, ids + part.ids.start, found.num_boxes[ids]

        parts = self._in_parts(chosen, first_of)[:: -1 if is_reversed else 1]
        keys, ids, num_boxes = map(np.concatenate, zip(*parts, strict=True))
        shown = np.flatnonzero(smallest(keys, stop) & ~smallest(keys, offset))
        shown = shown[np.argsort(keys[shown], kind="stable")]
        return list(zip(ids[shown].tolist(), num_boxes[shown].tolist(), strict=True))

    def count(self, chosen: Filter) -> dict[str, Any]:
        """Return the number of images and boxes that a filter shows, and their histograms as pairs of value and number.

        The histogram of classes is that without the filter's own classes and numbers of boxes, so that others can be chosen.
        """
        of_any_class = chosen.model_copy(update={"label": (), "min_boxes": None, "max_boxes": None})

        def of_part(found: Found, part: Part) -> dict[str, Any]:
            dates = part.images["run_date"][found.images] - self._dates.start
            numbers = found.num_boxes[found.images]
            others = found if of_any_class == chosen else found.with_filter(of_any_class)
            return {
                "images": len(dates),
                "boxes": int(numbers.sum()),
                "dates": np.bincount(dates, minlength=len(self._dates)),
                "num_boxes": np.bincount(np.minimum(numbers, MAX_BOXES_BAR), minlength=MAX_BOXES_BAR + 1),
                "scores": found.histogram("score_bin", NUM_SCORE_BINS),
                "labels": others.histogram("label", len(self.values["label"])),
            }

        parts = self._in_parts(chosen, of_part)
        sums = {name: sum(counted[name] for counted in parts) for name in parts[0]}
        labels = ((self.values["label"][code], count) for code, count in _pairs(sums["labels"]))
        return sums | {
            "dates": [(EPOCH + timedelta(self._dates.start + day), count) for day, count in _pairs(sums["dates"])],
            "num_boxes": _pairs(sums["num_boxes"]),
            "scores": _pairs(sums["scores"]),
            "labels": sorted(labels, key=lambda pair: -pair[1]),
        }

    def ids_of(self, keys: Sequence[str]) -> list[int]:
        """Return the numbers of the images whose rows have these names."""
        ids: list[int] = np.flatnonzero(
            np.isin(self._images["key"], np.array([int(key, 16) for key in keys], np.uint64))
        ).tolist()
        return ids

    def boxes_of(self, image_id: int, min_score: float) -> list[dict[str, Any]]:
        """Return the boxes of an image from a score on, the best first."""
        start, stop = self._first[image_id : image_id + 2]
        stop = start + np.count_nonzero(self._boxes["score"][start:stop] >= np.float32(min_score))
        columns = {name: self._boxes[name][start:stop].tolist() for name in ("label", "score", *SIDES)}
        columns["label"] = [self.values["label"][code] for code in columns["label"]]
        return [dict(zip(columns, box, strict=True)) for box in zip(*columns.values(), strict=True)]

    def shown(self, chosen: Filter) -> Shown:
        """Return all images and boxes that a filter shows."""

        def of_part(found: Found, part: Part) -> tuple[NDArray[Any], ...]:
            ids, boxes = np.flatnonzero(found.images), found.boxes_of_images
            of_boxes = (part.boxes[name].take(boxes) for name in ("image_id", "label"))
            return ids + part.ids.start, part.images["uri"].take(ids), *of_boxes

        return Shown(*map(np.concatenate, zip(*self._in_parts(chosen, of_part), strict=True)))

    def _part(self, ids: range) -> Part:
        images, boxes = slice(ids.start, ids.stop), slice(int(self._first[ids.start]), int(self._first[ids.stop]))
        return Part(
            ids,
            {name: array[images] for name, array in self._images.items()},
            {name: array[boxes] for name, array in self._boxes.items()},
        )

    def _in_parts(self, chosen: Filter, look: Callable[[Found, Part], Answer]) -> list[Answer]:
        """Return what a function says of each part, in order. It is asked on all cores at once."""
        with_text = self._find_text(chosen.text) if chosen.text else None
        found = (Found(part, chosen, self.values, with_text) for part in self._parts)
        return list(self._threads.map(look, found, self._parts))


def smallest(keys: NDArray[Any], count: int) -> Mask:
    """Return which are the smallest of some keys; of equal ones, those that come first."""
    if not 0 < count < len(keys):
        return np.full(len(keys), count > 0)
    largest = np.partition(keys, count - 1)[count - 1]
    chosen: Mask = keys < largest
    chosen[np.flatnonzero(keys == largest)[: count - np.count_nonzero(chosen)]] = True
    return chosen


def _pairs(counts: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return each value with its number, where there are any."""
    return [(value, count) for value, count in enumerate(counts.tolist()) if count]
