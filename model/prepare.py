"""Make examples ready for the training step: augmented, resized, padded to a batch."""

import torch
from torch import Tensor

from model.augment import Augmentation, size_of, vertical_flip
from model.colours import distort_colours
from model.config import Preprocessing, TrainingSettings
from model.example import Example
from model.loss import Targets
from model.order import seed_at
from model.preprocess import resize

Ready = tuple[Tensor, Tensor, Tensor]
"""An example for the step: image (3, S, S) uint8, boxes (N, 4) float xyxy in [0, 1], labels (N,) int64."""


class Preparation:
    """Augments and resizes examples. At each position of the training, the same example is augmented differently."""

    def __init__(self, image_size_px: int, preprocessing: Preprocessing, settings: TrainingSettings) -> None:
        self._image_size_px = image_size_px
        self._settings = settings
        self._augmentation = Augmentation(preprocessing, settings)

    def __call__(self, example: Example, position: int) -> Ready:
        """Return what the step learns at a position. It depends only on the example, the position and the settings."""
        with torch.random.fork_rng(devices=()):
            # torch.manual_seed would also record, with a stack trace, to seed the GPUs later, which takes 1 ms.
            torch.default_generator.manual_seed(seed_at(position, self._settings.seed))
            return self._prepared(example)

    def _prepared(self, example: Example) -> Ready:
        truth, is_one = example.truth, ~example.truth.is_crowd
        fraction = size_of(example.image) / torch.tensor(example.size_px)
        boxes_xyxy = truth.boxes_xyxy[is_one] * fraction.repeat(2)
        image, boxes, labels = self._augmentation(example.image, boxes_xyxy, truth.labels[is_one])
        if self._settings.vertical_flip:
            image, boxes = vertical_flip(image, boxes)
        height_px, width_px = image.shape[-2:]
        boxes = boxes / torch.tensor([width_px, height_px, width_px, height_px])
        return distort_colours(resize(image, self._image_size_px)), boxes, labels


def pad_targets(boxes_xyxy: list[Tensor], labels: list[Tensor]) -> Targets:
    """Return the objects of a batch, image by image, padded to the largest number in any image."""
    pad = torch.nn.utils.rnn.pad_sequence
    return Targets(pad(boxes_xyxy, batch_first=True), pad(labels, batch_first=True))
