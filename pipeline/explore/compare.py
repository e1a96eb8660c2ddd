"""Compare the boxes of two models or runs in the images that both have seen."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shown:
    """The images and boxes that a filter shows."""

    ids: NDArray[np.intp]
    """(N,) the numbers of the images."""
    uris: NDArray[np.int32]
    """(N,) the numbers of their URIs, in the order of names."""
    image_ids: NDArray[np.int32]
    """(M,) the image of each box."""
    labels: NDArray[np.uint16]
    """(M,) the class of each box."""

    def per_class(self, chosen: NDArray[np.intp], num_classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return how many boxes of each class some images have: place · num_classes + class in order, and the number, where there are any."""
        places = np.full(int(self.ids.max(initial=-1)) + 1, -1)
        places[self.ids[chosen]] = np.arange(len(chosen))
        of_boxes = places[self.image_ids]
        is_chosen = of_boxes >= 0
        return np.unique(of_boxes[is_chosen] * num_classes + self.labels[is_chosen], return_counts=True)


@dataclass(frozen=True)
class Pairs:
    """The images that two sides have, those first whose numbers of boxes per class differ most, then by name."""

    a: NDArray[np.intp]
    """(N,) the numbers of the images on the first side."""
    b: NDArray[np.intp]
    """(N,) on the second side."""
    differences: NDArray[np.intp]
    """(N,) by how many boxes they differ, summed over classes."""


def pairs_of(a: Shown, b: Shown, num_classes: int) -> Pairs:
    """Return the images of both sides with their differences."""
    _, in_a, in_b = np.intersect1d(a.uris, b.uris, return_indices=True)
    (keys_a, counts_a), (keys_b, counts_b) = a.per_class(in_a, num_classes), b.per_class(in_b, num_classes)
    _, both_a, both_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)

    def per_image(keys: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(keys // num_classes, counts, minlength=len(in_a)).astype(np.intp)

    common = per_image(keys_a[both_a], np.minimum(counts_a[both_a], counts_b[both_b]))
    differences = per_image(keys_a, counts_a) + per_image(keys_b, counts_b) - 2 * common
    order = np.argsort(-differences, kind="stable")
    return Pairs(a.ids[in_a][order], b.ids[in_b][order], differences[order])
