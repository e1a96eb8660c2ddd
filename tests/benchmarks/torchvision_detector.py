"""A detector as users of torchvision write one: its SSD300 in bfloat16, on one thread, with the weights of a package of ours."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16

from model.package import ModelPackage
from model.package_files import RECORD_FILE, WEIGHTS_FILE
from model.weight_sources import TORCHVISION_SSD


class TorchvisionDetector:
    """torchvision's SSD300.

    Args:
        model: folder of a package with the full SSD300.
    """

    def __init__(self, model: str) -> None:
        torch.set_num_threads(1)
        package = ModelPackage.from_files(
            {name: Path(model, name).read_bytes() for name in (RECORD_FILE, WEIGHTS_FILE)}
        )
        weights = {theirs: package.weights[ours] for theirs, ours in TORCHVISION_SSD.names.items()}
        network = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=1 + len(package.record.class_names))
        network.load_state_dict(weights)
        self._network = network.eval().to(memory_format=torch.channels_last)

    def __call__(self, images: Sequence[Tensor]) -> dict[str, list[Any]]:
        """Detect in images, each (3, H, W) uint8 RGB, and return columns. `pid` and `done_s` say which process was ready when."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = self._network([image / 255 for image in images])
        columns = {name: [one[name].tolist() for one in found] for name in ("boxes", "labels", "scores")}
        return columns | {"pid": [os.getpid()] * len(images), "done_s": [time.time()] * len(images)}
