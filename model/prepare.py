"""Make examples ready for the training step: augmented, resized, put together to a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.augment import Augmentation
from model.colours import Distortion, draw_factors
from model.config import Preprocessing, TrainingSettings
from model.example import Example
from model.loss import IGNORED, Targets
from model.order import seed_at

MIN_SIDE_PX = 3
"""The least width and height of an object in the network's input, in pixels. Smaller ones are ignored: they can't be seen, and are no
background either."""


@dataclass(frozen=True)
class Prepared:
    """An example as the step learns it, but for its colours: they are changed on the step's device."""

    image: Tensor
    """(3, S, S) uint8 RGB."""
    boxes_xyxy: Tensor
    """(N, 4) float in [0, 1]."""
    labels: Tensor
    """(N,) int64, see `Targets`."""
    factors: Tensor
    """(4,) float, see `Distortion`."""
    shown: Tensor
    """(4,) int64, the part of the pixels that shows the image, see `Distortion`."""


@dataclass(frozen=True)
class Batch:
    """The images that a step learns from, and their objects."""

    images: Tensor
    """(B, 3, S, S) uint8 RGB; fastest in channels-last memory."""
    targets: Targets
    """The objects of these images."""
    distortion: Distortion | None = None
    """The change of their colours, if there is one."""


class Preparation:
    """Augments and resizes examples. At each position of the training, the same example is augmented differently."""

    def __init__(self, image_size_px: int, preprocessing: Preprocessing, settings: TrainingSettings) -> None:
        self._image_size_px = image_size_px
        self._seed = settings.seed
        self._fill = torch.tensor([round(255 * mean) for mean in preprocessing.mean], dtype=torch.uint8)
        self._augmentation = Augmentation(settings)

    def __call__(self, example: Example, position: int) -> Prepared:
        """Return what the step learns at a position. It depends only on the example, the position and the settings."""
        with torch.random.fork_rng(devices=()):
            # torch.manual_seed would also record, with a stack trace, to seed the GPUs later, which takes 1 ms.
            torch.default_generator.manual_seed(seed_at(position, self._seed))
            return self._prepared(example)

    def _prepared(self, example: Example) -> Prepared:
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
        pixels, boxes, shown = window.show(image, boxes, input_px, self._fill)
        is_seen = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE_PX).all(dim=1)
        labels = labels.masked_fill(~is_seen, IGNORED)
        return Prepared(pixels, boxes / self._image_size_px, labels, draw_factors(), shown)


def to_batch(examples: Sequence[Prepared]) -> Batch:
    """Return examples as a batch, in their order."""
    images = torch.stack([example.image for example in examples]).contiguous(memory_format=torch.channels_last)
    targets = pad_targets([example.boxes_xyxy for example in examples], [example.labels for example in examples])
    factors, shown = (torch.stack([getattr(example, name) for example in examples]) for name in ("factors", "shown"))
    return Batch(images, targets, Distortion(factors, shown))


def pad_targets(boxes_xyxy: Sequence[Tensor], labels: Sequence[Tensor]) -> Targets:
    """Return the objects of a batch, image by image, padded to the largest number in any image."""
    pad = torch.nn.utils.rnn.pad_sequence
    return Targets(pad(list(boxes_xyxy), batch_first=True), pad(list(labels), batch_first=True))
