"""The choice of images: those whose labels would tell the most, of all classes, and none twice.

An image has a value for each class: the uncertainty of its boxes of that class, and the number of boxes on which two models disagree.
The value of a set of images is the sum over all classes of the square root of its images' values: f(S) = sum over c of
sqrt(sum over i in S of v_ic). So a class of which little was chosen counts more, and a rare one is not drowned by a common one. The set is
made greedily, which reaches at least 1 - 1/e of the best value, since f is submodular (Nemhauser, Wolsey and Fisher 1978, section 4).
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.active_learning.alike import SeenImages
from pipeline.active_learning.candidates import Candidates

NOISE = 0.2
"""The share of `min_score` below which a box says nothing."""


@dataclass(frozen=True)
class Choice:
    """An image that was chosen."""

    image: int
    """The index in the candidates."""
    gain: float
    """The value that it added to those chosen before it."""


@dataclass(frozen=True, eq=False)
class ClassValues:
    """The values of N images, as V pairs of a class and a value."""

    first: NDArray[np.int64]
    """(N + 1) int64: image i has the pairs from `first[i]` up to, and without, `first[i + 1]`."""
    classes: NDArray[np.int64]
    """(V,) int64."""
    values: NDArray[np.float64]
    """(V,) float64, above 0."""

    def alone(self) -> NDArray[np.float64]:
        """Return (N,) float64: what each image would be worth if nothing was chosen yet."""
        sums = np.concatenate([[0.0], np.cumsum(np.sqrt(self.values))])
        gains: NDArray[np.float64] = sums[self.first[1:]] - sums[self.first[:-1]]
        return gains


def uncertainties(scores: NDArray[np.float32], min_score: float) -> NDArray[np.float64]:
    """Return how uncertain boxes with these scores are: 1 at `min_score`, falling to 0 at scores of 0 and 1, and 0 where there is noise."""
    below, above = scores / min_score, (1 - scores) / (1 - min_score)
    found: NDArray[np.float64] = np.where(scores < NOISE * min_score, 0, np.minimum(below, above)).astype(np.float64)
    return np.clip(found, 0, 1)


def class_values(candidates: Candidates, min_score: float, disagreements: Mapping[tuple[int, int], int]) -> ClassValues:
    """Return the values of all candidates.

    Args:
        candidates: the images.
        min_score: the score from which a box counts as found.
        disagreements: the number of boxes on which two models disagree, by image and class.
    """
    num_classes, num_images = max(len(candidates.class_names), 1), len(candidates.uris)
    pairs = candidates.image_of_boxes() * num_classes + candidates.classes
    values = uncertainties(candidates.scores, min_score)
    if disagreements:
        pairs = np.concatenate([pairs, [image * num_classes + label for image, label in disagreements]])
        values = np.concatenate([values, list(disagreements.values())])
    places, owners = np.unique(pairs[values > 0], return_inverse=True)
    summed = np.bincount(owners, weights=values[values > 0], minlength=len(places)).astype(np.float64)
    first = np.searchsorted(places, np.arange(num_images + 1) * num_classes)
    return ClassValues(first, places % num_classes, summed)


def choose(candidates: Candidates, values: ClassValues, budget: int, earlier: Sequence[int] = ()) -> list[Choice]:
    """Choose images, the most valuable first; fewer than the budget if no others have a value.

    Args:
        candidates: the images.
        values: their values.
        budget: the number of images to choose.
        earlier: images that were chosen before. Neither they nor images that look like them are chosen.

    A gain only shrinks while others are chosen. So each image waits with the gain that it had when it was last looked at, and is looked
    at again when it comes first (Minoux 1978).
    """
    totals = np.zeros(max(len(candidates.class_names), 1))
    seen, chosen = SeenImages(candidates), list[Choice]()
    alone = values.alone()
    for image in earlier:
        seen.add(image)
        alone[image] = 0
    waiting = [(-alone[image], int(image), 0) for image in np.flatnonzero(alone)]
    heapq.heapify(waiting)
    while waiting and len(chosen) < budget:
        negative_gain, image, num_chosen = heapq.heappop(waiting)
        pairs = slice(values.first[image], values.first[image + 1])
        if num_chosen < len(chosen):
            before = totals[values.classes[pairs]]
            gain = float((np.sqrt(before + values.values[pairs]) - np.sqrt(before)).sum())
            heapq.heappush(waiting, (-gain, image, len(chosen)))
        elif not seen.has_alike(image):
            seen.add(image)
            totals[values.classes[pairs]] += values.values[pairs]
            chosen.append(Choice(image, -float(negative_gain)))
    return chosen
