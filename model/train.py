"""The training step and a plain loop around it."""

import math
import pickle
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.augment import Augmentation, vertical_flip
from model.config import Architecture, Preprocessing, TrainingSettings
from model.default_boxes import default_boxes
from model.detector import fast_dtype
from model.example import Examples
from model.loss import Losses, Targets, multibox_loss
from model.preprocess import normalise, resize
from model.ssd import SSD
from model.vgg16 import scaled


class TrainingExamples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Augmented, resized examples; drawing index i of pass n is another crop than in pass n + 1."""

    def __init__(
        self, examples: Examples, image_size_px: int, preprocessing: Preprocessing, settings: TrainingSettings
    ) -> None:
        self._examples = examples
        self._image_size_px = image_size_px
        self._augmentation = Augmentation(preprocessing, settings.rescale)
        self._vertical_flip = settings.vertical_flip

    def __getstate__(self) -> bytes:
        """All by value: as torch's tensors go to other processes, each holds a file open, and there may be too many."""
        return pickle.dumps(self.__dict__)

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(pickle.loads(state))  # noqa: S301 - what __getstate__ made

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """(3, S, S) uint8; boxes (N, 4) float xyxy in [0, 1]; labels (N,) int64."""
        example = self._examples[index]
        truth, is_one = example.truth, ~example.truth.is_crowd
        image, boxes, labels = self._augmentation(example.image, truth.boxes_xyxy[is_one], truth.labels[is_one])
        if self._vertical_flip:
            image, boxes = vertical_flip(image, boxes)
        height_px, width_px = image.shape[-2:]
        boxes = boxes / torch.tensor([width_px, height_px, width_px, height_px])
        return resize(image, self._image_size_px), boxes, labels


def collate(examples: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Targets]:
    """Stack images (B, 3, S, S) and pad objects to the most of any of them."""
    images, boxes, labels = zip(*examples, strict=True)
    pad = torch.nn.utils.rnn.pad_sequence
    return torch.stack(images), Targets(pad(list(boxes), batch_first=True), pad(list(labels), batch_first=True))


class NotFiniteError(ArithmeticError):
    """The loss became infinite or NaN."""


class TrainingStep:
    """One optimizer step on one batch: forward, loss, backward, update. Loss and weights in float32."""

    def __init__(
        self, network: SSD, architecture: Architecture, preprocessing: Preprocessing, settings: TrainingSettings
    ) -> None:
        self.device = next(network.parameters()).device
        self._network = network
        self._preprocessing = preprocessing
        self._settings = settings
        self._default_boxes = default_boxes(architecture).to(self.device)
        self._dtype = training_dtype(self.device, architecture)
        self._optimizer = torch.optim.SGD(
            network.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )

    def __call__(self, step: int, images: Tensor, targets: Targets) -> Losses:
        """Learn from a batch.

        Args:
            step: from 0; decides the learning rate.
            images: (B, 3, S, S) uint8.
            targets: their objects.

        Raises:
            NotFiniteError: before the weights are touched.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, self._settings)
        inputs = normalise(images.to(self.device), self._preprocessing, torch.float32)
        targets = Targets(targets.boxes_xyxy.to(self.device), targets.labels.to(self.device))
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            offsets, logits = self._network(inputs)
        losses = multibox_loss(offsets, logits, targets, self._default_boxes)
        if not math.isfinite(losses.total.item()):
            raise NotFiniteError(f"the loss is {losses.total.item()} at step {step}")
        self._optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), max_norm=10)
        self._optimizer.step()
        return Losses(losses.localization.detach(), losses.classification.detach())


def training_dtype(device: torch.device, architecture: Architecture) -> torch.dtype:
    """`fast_dtype`, but float32 where gradients in bfloat16 can't be trusted.

    On a CPU with avx512_bf16, torch 2.14.1 gave wrong or infinite weight gradients of conv6, or crashed, when its map is
    32×32 and its input channels are no multiple of 16; SSD300's 19×19 and all multiples of 16 were right.
    """
    if device.type == "cpu" and architecture.kind == "ssd512_vgg16" and scaled(512, architecture.width) % 16:
        return torch.float32
    return fast_dtype(device)


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine to 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, settings.num_steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def train(
    examples: Examples,
    architecture: Architecture,
    preprocessing: Preprocessing,
    num_classes: int,
    settings: TrainingSettings,
    report: Callable[[int, Losses, float], None],
    device: torch.device | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> SSD:
    """Train a network.

    Args:
        examples: labelled images, of any sizes.
        architecture: the network's shape.
        preprocessing: how pixels are normalised.
        num_classes: with the background.
        settings: the recipe.
        report: called after each step with the step, its losses, and images/s since the start.
        device: where the step runs; the CPU unless said.
        weights: tensors by name to start from; what they leave out starts at random.

    Returns:
        The network, ready for inference.
    """
    torch.manual_seed(settings.seed)
    network = SSD(architecture, num_classes)
    network.load_state_dict(weights or {}, strict=False)
    network = network.to(device=device).to(memory_format=torch.channels_last)
    step_on = TrainingStep(network, architecture, preprocessing, settings)
    dataset = TrainingExamples(examples, architecture.image_size_px, preprocessing, settings)
    started = time.perf_counter()
    for step, (images, targets) in enumerate(_batches(dataset, settings)):
        losses = step_on(step, images, targets)
        report(step, losses, (step + 1) * settings.batch_size / (time.perf_counter() - started))
    return network.eval()


def _batches(dataset: TrainingExamples, settings: TrainingSettings) -> Iterable[tuple[Tensor, Targets]]:
    """`num_steps` batches, in another order each pass."""
    generator = torch.Generator().manual_seed(settings.seed)
    sampler = torch.utils.data.RandomSampler(
        dataset, replacement=False, num_samples=settings.num_steps * settings.batch_size, generator=generator
    )
    return DataLoader(
        dataset,
        settings.batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=settings.num_workers,
        generator=generator,
        # Not fork: a child of a process with threads (torch's, Arrow's, CUDA's) may wait for ever for one of their locks.
        multiprocessing_context="spawn" if settings.num_workers else None,
    )
