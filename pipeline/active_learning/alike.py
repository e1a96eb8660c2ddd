"""Images that look alike, by their boxes: the frames of a camera that saw nothing new."""

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray

from model.boxes import pairwise_iou
from pipeline.active_learning.candidates import Candidates

MIN_IOU, MAX_SCORE_DIFFERENCE = 0.85, 0.1
"""The least overlap of two boxes that are one thing in two images, and the largest difference of their scores."""

Kind = tuple[tuple[int, ...], bytes]


class SeenImages:
    """The images that were chosen, to ask whether another looks like one of them.

    Two images look alike if they have the same size, and each box of one has its partner in the other: of the same class, almost in
    the same place and with almost the same score. Images without boxes look like no other.
    """

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._by_kind: dict[Kind, list[int]] = defaultdict(list)

    def has_alike(self, image: int) -> bool:
        """Does an image look like one that was added?"""
        return any(self._are_alike(image, seen) for seen in self._by_kind.get(self._kind(image), ()))

    def add(self, image: int) -> None:
        """Add an image."""
        self._by_kind[self._kind(image)].append(image)

    def _kind(self, image: int) -> Kind:
        """Return the size of an image and its sorted classes. Images that look alike have the same."""
        return tuple(self._candidates.sizes_px[image].tolist()), np.sort(self._classes(image)).tobytes()

    def _classes(self, image: int) -> NDArray[np.int32]:
        return self._candidates.classes[self._candidates.boxes_of(image)]

    def _are_alike(self, first: int, second: int) -> bool:
        candidates = self._candidates
        one, other = candidates.boxes_of(first), candidates.boxes_of(second)
        if one.start == one.stop:
            return False
        are_partners = (
            (candidates.classes[one][:, None] == candidates.classes[other])
            & (abs(candidates.scores[one][:, None] - candidates.scores[other]) <= MAX_SCORE_DIFFERENCE)
            & (
                pairwise_iou(*map(torch.from_numpy, (candidates.boxes_xyxy[one], candidates.boxes_xyxy[other]))).numpy()
                >= MIN_IOU
            )
        )
        return bool(are_partners.any(axis=0).all() and are_partners.any(axis=1).all())
