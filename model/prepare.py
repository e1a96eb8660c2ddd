"""Make examples ready for the training step: augmented, resized, padded to a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.augment import Augmentation
from model.colours import distort_colours
from model.config import Preprocessing, TrainingSettings
from model.example import Example
from model.loss import IGNORED, Targets
from model.order import seed_at

Ready = tuple[Tensor, Tensor, Tensor]
"""An example for the step: image (3, S, S) uint8, boxes (N, 4) float xyxy in [0, 1], labels (N,) int64, see `Targets`."""
MIN_SIDE_PX = 3
"""The least width and height of an object in the network's input, in pixels. Smaller ones are ignored: they can't be seen, and are no
background either."""


class Preparation:
    """Augments and resizes examples. At each position of the training, the same example is augmented differently."""

    def __init__(self, image_size_px: int, preprocessing: Preprocessing, settings: TrainingSettings) -> None:
        self._image_size_px = image_size_px
        self._seed = settings.seed
        self._fill = torch.tensor([round(255 * mean) for mean in preprocessing.mean], dtype=torch.uint8)
        self._augmentation = Augmentation(settings)

    def __call__(self, example: Example, position: int) -> Ready:
        """Return what the step learns at a position. It depends only on the example, the position and the settings."""
        with torch.random.fork_rng(devices=()):
            # torch.manual_seed would also record, with a stack trace, to seed the GPUs later, which takes 1 ms.
            torch.default_generator.manual_seed(seed_at(position, self._seed))
            return self._prepared(example)

    def _prepared(self, example: Example) -> Ready:
        truth, image = example.truth, example.image
        size_px = image.shape[2], image.shape[1]
        fraction = torch.tensor(size_px) / torch.tensor(example.size_px)
        learned = truth.labels.masked_fill(truth.is_crowd, IGNORED)
        boxes = truth.boxes_xyxy * fraction.repeat(2)
        if (
            example.original_px
        ):  # rounding may have moved a box over the border of a picture that was decoded at a fraction
            boxes = boxes.minimum(torch.tensor(size_px).repeat(2))
        window, boxes, labels = self._augmentation(size_px, boxes, learned)
        input_px = (self._image_size_px, self._image_size_px)
        pixels, boxes = window.show(image, boxes, input_px, self._fill, distort_colours)
        is_seen = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE_PX).all(dim=1)
        return pixels, boxes / self._image_size_px, labels.masked_fill(~is_seen, IGNORED)


def pad_targets(boxes_xyxy: Sequence[Tensor], labels: Sequence[Tensor]) -> Targets:
    """Return the objects of a batch, image by image, padded to the largest number in any image."""
    pad = torch.nn.utils.rnn.pad_sequence
    return Targets(pad(list(boxes_xyxy), batch_first=True), pad(list(labels), batch_first=True))
