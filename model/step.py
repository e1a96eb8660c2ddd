"""The training step: forward, loss, backward, update."""

import math
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.config import Architecture, TrainingSettings
from model.default_boxes import default_boxes
from model.engine import DTYPES, fast_precision
from model.loss import Losses, Targets, count_matched, match, multibox_loss
from model.moving_average import MovingAverage
from model.package_files import PackageRecord
from model.prepare import Batch
from model.preprocess import normalise
from model.ssd import SSD
from model.vgg16 import pool_positions, scaled

DROP = 0.1
"""The learning rate's factor at each milestone. Source: Liu et al. 2016, section 3.1."""


class NotFiniteError(ArithmeticError):
    """The loss, a gradient or a weight became infinite or NaN."""


class TrainingStep:
    """The optimizer step on a batch: forward, loss, backward, update. Loss and weights are in float32.

    Where torch.distributed runs, each worker gives its part of the batch. All workers end with the gradients of the
    whole batch: sums over all images, divided by the number of all matched boxes. Only batch norm differs: on CPUs its
    statistics are those of a worker's part.
    """

    def __init__(self, network: SSD, record: PackageRecord, settings: TrainingSettings) -> None:
        self.device = next(network.parameters()).device
        self.num_workers = distributed.get_world_size() if distributed.is_initialized() else 1
        freeze(network, settings.freeze_stages)
        self._network = self._synchronised(network)
        self._preprocessing = record.preprocessing
        self._settings = settings
        self._default_boxes = default_boxes(record.architecture).to(self.device)
        self._class_weights = class_weights(settings, record.class_names).to(self.device)
        self._dtype = training_dtype(self.device, record.architecture)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._dtype == torch.float16)
        self._optimizer = torch.optim.SGD(
            parameter_groups(self._network, settings),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
        )
        self._average = MovingAverage(self._network, settings.ema_decay) if settings.ema_decay else None
        self.is_compiled = settings.compile and can_compile(self.device)
        self._forward: Any = torch.compile(self._network) if self.is_compiled else self._network
        if self.num_workers > 1:
            self._forward = DistributedDataParallel(self._forward)

    def __call__(self, step: int, batch: Batch) -> Losses:
        """Learn from a batch.

        Args:
            step: the number of the step, from 0, which decides the learning rate.
            batch: the images and their objects; with several workers, this worker's part.

        Returns:
            The losses over the whole batch, of all workers.

        Raises:
            NotFiniteError: the loss or a gradient is infinite or NaN. All workers raise it at once, before any weight changes.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, self._settings)
        targets = Targets(batch.targets.boxes_xyxy.to(self.device), batch.targets.labels.to(self.device))
        matched = match(targets, self._default_boxes, self._settings.match_iou)
        num_matched = self._over_workers(count_matched(matched[1], self._settings.min_negatives)).clamp(min=1)
        self._optimizer.zero_grad(set_to_none=True)
        sums = self._over_workers(self._accumulate(self._inputs(batch), matched, num_matched))
        if not sums.isfinite().all():
            raise NotFiniteError(f"the loss is {sums.sum().item()} at step {step}")
        self._scaler.unscale_(self._optimizer)
        max_norm = self._settings.max_gradient_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._network.parameters(), max_norm=max_norm)
        if not norm.isfinite() and self._scaler.get_scale() <= 1:  # 1 without float16, whose first steps may be skipped
            raise NotFiniteError(f"the gradient is {norm.item()} at step {step}")
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average:
            self._average.update(step)
        return Losses(*sums)

    def check_weights(self) -> None:
        """Check that the weights are finite and can be kept; all workers have the same.

        Raises:
            NotFiniteError: some weights are infinite or NaN, after too large a step.
        """
        if not all(weight.isfinite().all() for weight in self._network.parameters()):
            raise NotFiniteError("weights are not finite numbers")

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors to measure and to package, by name: the network's, or their moving average."""
        return self._average.weights if self._average else self._network.state_dict()

    def state(self) -> dict[str, Any]:
        """Return all that another process needs to resume from here, and `weights`."""
        state = {"network": self._network.state_dict(), "optimizer": self._optimizer.state_dict()}
        return state | {"weights": self.weights, "scaler": self._scaler.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Resume from what `state` returned."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty if the run began where there is no float16
            self._scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.load(state["weights"])

    def _inputs(self, batch: Batch) -> Tensor:
        images = batch.images.to(self.device, non_blocking=True)
        return normalise(batch.distortion(images) if batch.distortion else images, self._preprocessing, torch.float32)

    def _accumulate(self, inputs: Tensor, matched: tuple[Tensor, Tensor], num_matched: Tensor) -> Tensor:
        """Run forward and backward, part by part, and return this worker's sums of both losses.

        The gradients are then those of the whole batch.
        """
        count = num_parts(self._settings, self.num_workers)
        parts = list(zip(*(tensor.tensor_split(count) for tensor in (inputs, *matched)), strict=True))
        sums = torch.zeros(2, device=self.device)
        for number, (part, boxes_xyxy, labels) in enumerate(parts, start=1):
            with self._gathered_later() if number < len(parts) else nullcontext():
                losses = self._losses(part, (boxes_xyxy, labels), num_matched)
                # DistributedDataParallel takes the mean over workers, where the sum is wanted.
                self._scaler.scale(losses.total * self.num_workers).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack((losses.localization.detach(), losses.classification.detach()))
        return sums

    def _losses(self, inputs: Tensor, matched: tuple[Tensor, Tensor], num_matched: Tensor) -> Losses:
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            offsets, logits = self._forward(inputs)
        return multibox_loss(
            offsets,
            logits,
            matched,
            self._default_boxes,
            num_matched,
            self._class_weights,
            self._settings.min_negatives,
        )

    def _gathered_later(self) -> AbstractContextManager[None]:
        """Return a context for all parts but the last, in which gradients are not shared with other workers."""
        return self._forward.no_sync() if self.num_workers > 1 else nullcontext()

    def _over_workers(self, value: Tensor) -> Tensor:
        """Return the sum of a value over all workers."""
        if self.num_workers > 1:
            distributed.all_reduce(value)
        return value

    def _synchronised(self, network: SSD) -> nn.Module:
        """Return the network with batch norm over the whole batch, where torch has it: on GPUs."""
        if self.num_workers > 1 and self.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call, no-any-return]
        return network


def freeze(network: SSD, num_stages: int) -> None:
    """Let the first stages of a network's trunk keep their weights, and the statistics of their batch norm."""
    if not num_stages:
        return
    for layer in network.trunk[: pool_positions(network.trunk)[num_stages - 1]]:
        layer.requires_grad_(False)
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def parameter_groups(network: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Return the parameters to learn, with the weight decay of each, as an optimizer takes them."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    is_decayed = [settings.decay_biases or parameter.dim() > 1 for parameter in learned]
    groups = [
        {"params": [p for p, is_of in zip(learned, is_decayed, strict=True) if is_of == decays], "weight_decay": decay}
        for decays, decay in ((True, settings.weight_decay), (False, 0.0))
    ]
    return [group for group in groups if group["params"]]


def class_weights(settings: TrainingSettings, class_names: tuple[str, ...]) -> Tensor:
    """Return the weight of each class: (C,) float, the background first, 1 unless the settings have another.

    Raises:
        ValueError: the settings name a class that does not exist.
    """
    if unknown := sorted(settings.class_weights.keys() - set(class_names)):
        raise ValueError(f"class_weights: no class is named {', '.join(unknown)}; there are {', '.join(class_names)}")
    return torch.tensor([1.0, *(settings.class_weights.get(name, 1.0) for name in class_names)])


def num_parts(settings: TrainingSettings, num_workers: int) -> int:
    """Return the number of forward passes per step, the same for each worker.

    Otherwise workers with a larger share would wait for the others for ever.
    """
    return max(1, min(settings.grad_accumulation, settings.batch_size // num_workers))


def can_compile(device: torch.device) -> bool:
    """Return whether this machine has what torch.compile needs for a device: a C++ compiler on a CPU, and on a GPU Triton's C compiler."""
    names = [os.environ.get("CXX", "g++")]
    if device.type != "cpu":
        names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return any(map(shutil.which, names))


def training_dtype(device: torch.device, architecture: Architecture) -> torch.dtype:
    """Return the type of `fast_precision`, but float32 where gradients in bfloat16 can't be trusted.

    On a CPU with avx512_bf16, torch 2.14.1 gave wrong or infinite weight gradients of conv6, or crashed. This happened
    when its map was 32×32 and its input channels were no multiple of 16. SSD300's 19×19 and all multiples of 16 were
    right.
    """
    if device.type == "cpu" and architecture.kind == "ssd512_vgg16" and scaled(512, architecture.width) % 16:
        return torch.float32
    return DTYPES[fast_precision(device)]


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine to 0, or a tenth from each milestone on."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "multistep":
        return settings.learning_rate * DROP ** sum(step >= milestone for milestone in settings.milestones)
    share = (step - settings.warmup_steps) / max(1, settings.num_steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
