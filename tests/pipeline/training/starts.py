"""Models to start a training from."""

from pathlib import Path
from typing import Any

import torch

from model.config import Architecture, Preprocessing
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.ssd import adapted_trunk
from pipeline.registry.packages import write_package
from pipeline.training.settings import TrainSettings

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def write_trunk(folder: Path) -> str:
    """A narrow VGG16 as `model import` leaves wide ones: no heads, no classes, no batch norm."""
    torch.manual_seed(3)
    architecture = Architecture(width=0.1)
    weights = {f"trunk.{name}": tensor for name, tensor in adapted_trunk(architecture).state_dict().items()}
    record = PackageRecord(name="vgg", architecture=architecture, class_names=(), preprocessing=IMAGENET)
    write_package(ModelPackage(record, weights), str(folder))
    return str(folder)


def short_training(data: Path, output: Path, **more: object) -> TrainSettings:
    """Two steps of a narrow network, unless its start says how wide it is."""
    few: dict[str, Any] = {"num_steps": 2, "batch_size": 2}
    if "init" not in more:
        few["width"] = 0.05
    return TrainSettings(data=(str(data),), output=str(output), name="shapes", **few | more)
