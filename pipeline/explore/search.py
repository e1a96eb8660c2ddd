"""The search for the images and boxes that a filter shows, over arrays: a few passes, whatever is asked."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.explore.arrays import MappedFiles
from pipeline.explore.boxes import Boxes, Mask
from pipeline.explore.build import COLUMN, NUM_SCORE_BINS, VALUES
from pipeline.explore.filters import Filter, Sort

EPOCH = date(1970, 1, 1)
MAX_BOXES_BAR = 20
"""The last bar of the histogram of boxes per image, which also has those with more."""
FindText = Callable[[str], NDArray[np.int32]]
"""A function that returns the IDs of the images whose URI has a text in it."""


class Found:
    """The images that a filter shows.

    Args:
        images: (N,) bool, over all images.
        num_boxes: (N,) int32, the boxes that the filter is about.
        best: returns the best score of these in each image, (N,) float32, NaN where there is none.
        boxes: returns the boxes that the filter is about, also of other images, (M,) bool over all boxes.
    """

    def __init__(
        self,
        images: Mask,
        num_boxes: NDArray[np.int32],
        best: Callable[[], NDArray[np.float32]],
        boxes: Callable[[], Mask],
    ) -> None:
        self.images, self.num_boxes, self.best, self.boxes = images, num_boxes, best, boxes


class Search:
    """The arrays of a copy.

    Args:
        folder: the folder of the copy.
        files: those of this folder.
        find_text: searches the URIs.
    """

    def __init__(self, folder: Path, files: MappedFiles, find_text: FindText) -> None:
        self._images = files.arrays("images")
        self.boxes = Boxes(files)
        self.values: dict[str, list[str]] = msgspec.json.decode((folder / VALUES).read_bytes())
        # A page and its histograms ask for the same text. The answer to a text may have four bytes per image.
        self._find_text = lru_cache(maxsize=2)(find_text)

    def find(self, chosen: Filter) -> Found:
        """Return what a filter shows."""
        images = self._of_images(chosen)
        if chosen.is_default:
            num_boxes: NDArray[np.int32] = self._images["num_boxes"]
            found = Found(images, num_boxes, lambda: self._images["best_score"], lambda: self._of_boxes(chosen))
        else:
            boxes = self._of_boxes(chosen)
            num_boxes = self.boxes.count(boxes)
            found = Found(images, num_boxes, lambda: self.boxes.best(boxes, num_boxes), lambda: boxes)
        least = chosen.min_boxes
        if least is None and chosen.is_about_boxes and chosen.max_boxes is None:
            least = 1
        if least is not None:
            images &= num_boxes >= least
        if chosen.max_boxes is not None:
            images &= num_boxes <= chosen.max_boxes
        return found

    def _of_images(self, chosen: Filter) -> Mask:
        """Return the images that meet the conditions on images."""
        images = self._images
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
        if chosen.text:
            has_text = np.zeros(len(mask), np.bool_)
            has_text[self._find_text(chosen.text)] = True
            mask &= has_text
        return mask

    def _is(self, value: str, name: str) -> Mask:
        """Return the images that have a value in a column of numbers that stand for values."""
        values = self.values[name]
        code = values.index(value) if value in values else -1
        return np.asarray(self._images[name] == code)

    def _of_boxes(self, chosen: Filter) -> Mask:
        """Return the boxes that meet the conditions on boxes."""
        mask: Mask = np.asarray(self.boxes["score"] >= np.float32(chosen.min_score))
        if chosen.max_score < 1:
            mask &= self.boxes["score"] < np.float32(chosen.max_score)
        if chosen.min_size > 0:
            mask &= self.boxes["size"] >= np.float32(chosen.min_size)
        if chosen.max_size < 1:
            mask &= self.boxes["size"] < np.float32(chosen.max_size)
        if chosen.label:
            codes = [self.values["label"].index(name) for name in chosen.label if name in self.values["label"]]
            is_of_class = np.zeros(len(mask), np.bool_)
            for code in codes:
                is_of_class |= self.boxes["label"] == code
            mask &= is_of_class
        return mask

    def page(self, found: Found, sort: Sort, offset: int, num_images: int) -> list[int]:
        """Return the IDs of the images of a page, in order."""
        keys = self._keys(found, sort)
        shown = keys[found.images]
        stop = min(offset + num_images, len(shown))
        if stop <= offset:
            return []
        last = np.partition(shown, stop - 1)[stop - 1]
        candidates = np.flatnonzero(found.images & (keys <= last))
        if sort == "newest":
            candidates = candidates[::-1]  # of one date, the last one first
        ordered = candidates[np.argsort(keys[candidates], kind="stable")]
        chosen: list[int] = ordered[offset:stop].tolist()
        return chosen

    def _keys(self, found: Found, sort: Sort) -> NDArray[Any]:
        """Return a number of four bytes per image, by which images are ordered; equal ones by their ID."""
        images = self._images
        if sort in ("name", "newest"):
            return np.asarray(images["name_order"] if sort == "name" else -images["run_date"])
        if sort in ("most_boxes", "fewest_boxes"):
            return -found.num_boxes if sort == "most_boxes" else found.num_boxes
        best = found.best()
        without_boxes_last: NDArray[np.float32] = np.where(
            np.isnan(best), np.float32(np.inf), -best if sort == "best" else best
        )
        return without_boxes_last

    def ids_of(self, keys: Sequence[str]) -> NDArray[np.intp]:
        """Return the IDs of the images whose rows have these names."""
        return np.flatnonzero(np.isin(self._images["key"], np.array([int(key, 16) for key in keys], np.uint64)))

    def count(self, chosen: Filter) -> dict[str, Any]:
        """Return the number of images and boxes that a filter shows, and their histograms as pairs of value and number.

        The histogram of classes is that without the filter's own classes and numbers of boxes, so that others can be chosen.
        """
        found = self.find(chosen)
        dates = self._images["run_date"][found.images]
        numbers = found.num_boxes[found.images]
        of_any_class = chosen.model_copy(update={"label": (), "min_boxes": None, "max_boxes": None})
        others = found if of_any_class == chosen else self.find(of_any_class)
        by_label = self._histogram(others, "label", len(self.values["label"]))
        first = int(dates.min()) if len(dates) else 0
        return {
            "images": len(dates),
            "boxes": int(numbers.sum()),
            "dates": [(EPOCH + timedelta(first + day), count) for day, count in _pairs(np.bincount(dates - first))],
            "num_boxes": _pairs(np.bincount(np.minimum(numbers, MAX_BOXES_BAR))),
            "scores": _pairs(self._histogram(found, "score_bin", NUM_SCORE_BINS)),
            "labels": sorted(
                ((self.values["label"][code], count) for code, count in _pairs(by_label)), key=lambda pair: -pair[1]
            ),
        }

    def _histogram(self, found: Found, name: str, num_bins: int) -> NDArray[np.intp]:
        """Return the number of boxes per value of a column, of the images that are shown."""
        boxes = found.boxes()
        if not found.images.all():
            boxes = boxes & self.boxes.of_images(found.images)
        return self.boxes.histogram(name, boxes, num_bins)


def _pairs(counts: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return each value with its number, where there are any."""
    return [(value, count) for value, count in enumerate(counts.tolist()) if count]
