"""Drawn pictures as examples for training and evaluation.

This module is separate from the demo's training, which takes seconds to import.
"""

from collections.abc import Sequence

import numpy as np
import torch

from jobs.demo.pictures import LabelledPicture, draw_picture
from model.example import Example, plain_truth


class DrawnExamples(Sequence[Example]):
    """The pictures of consecutive seeds, each drawn only when it is asked for."""

    def __init__(self, first_seed: int, count: int) -> None:
        self._first_seed, self._count = first_seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        return to_example(draw_picture(self._first_seed + index))


def to_example(picture: LabelledPicture) -> Example:
    """Return a drawn picture as an example of tensors."""
    truth = plain_truth(torch.from_numpy(picture.boxes_xyxy), torch.from_numpy(picture.labels))
    return Example(torch.from_numpy(np.array(picture.image)).permute(2, 0, 1), truth)
