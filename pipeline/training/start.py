"""The start of a training: nothing, a trunk, or a detector, whose heads are kept for the classes that both have."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import ValidationError

from model.config import Architecture, ArchitectureName, Preprocessing
from model.package import ModelPackage
from model.ssd import network_of_shapes
from model.start import inherit
from pipeline.errors import SettingError
from pipeline.labelled.examples import LabelledExamples
from pipeline.labelled.record import LabelledImage
from pipeline.registry.packages import read_start
from pipeline.training.settings import RANDOM, TrainSettings

logger = logging.getLogger(__name__)

IMAGENET_STD = (0.229, 0.224, 0.225)
"""The standard deviations that bring inputs near unit spread. With batch norm and fresh weights, there is no Caffe range to keep to."""


@dataclass(frozen=True)
class Start:
    """The start of a training. Weights that are not given start at random."""

    architecture: Architecture
    preprocessing: Preprocessing
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def examples(
        self, images: Sequence[LabelledImage], names: tuple[str, ...], crop_min: float = 1.0
    ) -> LabelledExamples:
        """Return labelled images, decoded as the model to train wants them; for `crop_min` see `Preprocessing.min_side_px`."""
        min_side_px = self.preprocessing.min_side_px(self.architecture.image_size_px, crop_min)
        return LabelledExamples(images, names, min_side_px)


def start_of(settings: TrainSettings, labels: tuple[str, ...]) -> Start:
    """Return the start that the settings describe; raises as `from_package`."""
    if settings.init and settings.init != RANDOM:
        start = from_package(settings, labels)
    elif settings.freeze_stages:
        raise SettingError(f"freeze_stages {settings.freeze_stages} would keep random weights; give init, too")
    else:
        start = from_scratch(settings.width, settings.architecture, **settings.default_boxes)
    if "jpeg_dct_scaling" not in settings.model_fields_set:
        return start
    preprocessing = start.preprocessing.model_copy(update={"jpeg_dct_scaling": settings.jpeg_dct_scaling})
    return replace(start, preprocessing=preprocessing)


def from_scratch(width: float, kind: ArchitectureName = "ssd300_vgg16", **default_boxes: Any) -> Start:
    """Return the start of a network with batch norm, all of it at random."""
    return Start(
        Architecture(kind=kind, width=width, batch_norm=True, **default_boxes), Preprocessing(std=IMAGENET_STD)
    )


def from_package(settings: TrainSettings, labels: tuple[str, ...]) -> Start:
    """Return the weights of the package `settings.init` that fit, and its architecture with the kind and scales of the settings.

    Raises:
        SettingError: the package can't be read, nothing of its trunk fits, its width is another, or the class map has an unknown name.
    """
    assert settings.init is not None
    try:
        package = read_start(settings.init)
    except SettingError as error:
        raise SettingError(f"init: {error}") from error
    try:
        architecture = _architecture(package, settings)
    except ValidationError as error:
        raise SettingError(f"scales: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    _check_class_map(settings.class_map, package.record.class_names, labels)
    inherited = inherit(package, architecture, labels, settings.class_map, settings.seed)
    weights = inherited.weights
    if not any(name.startswith("trunk.") and name.endswith(".weight") for name in weights):
        raise SettingError(f"init {settings.init!r} can't be used: nothing of its trunk fits {architecture.kind}")
    if broken := sorted(name for name, tensor in weights.items() if not tensor.isfinite().all()):
        raise SettingError(f"init {settings.init!r} can't be used: not finite numbers: {', '.join(broken)}")
    fresh = network_of_shapes(architecture, len(labels) + 1).state_dict().keys() - weights.keys()
    layers = sorted({name.partition(".")[0] for name in fresh})
    logger.info("init: %d tensors kept; at random: %s", len(weights), ", ".join(layers) or "none")
    if package.record.class_names:
        known = ", ".join(inherited.class_names) or "none"
        new = ", ".join(name for name in labels if name not in inherited.class_names) or "none"
        logger.info("init: classes that it knows: %s; new ones: %s", known, new)
    return Start(architecture, package.record.preprocessing, weights, {"init": package.digest})


def _architecture(package: ModelPackage, settings: TrainSettings) -> Architecture:
    """Return the package's architecture, with the kind and scales that the settings give."""
    found = package.record.architecture
    if "width" in settings.model_fields_set and settings.width != found.width:
        raise SettingError(f"width: that of init {settings.init!r} is {found.width}, not {settings.width}")
    is_other = "architecture" in settings.model_fields_set and settings.architecture != found.kind
    if is_other or not package.record.class_names:
        return Architecture(
            kind=settings.architecture, width=found.width, batch_norm=found.batch_norm, **settings.default_boxes
        )
    return Architecture(**found.model_dump() | settings.default_boxes)


def _check_class_map(class_map: Mapping[str, str], old: Sequence[str], new: Sequence[str]) -> None:
    for source, target in class_map.items():
        if source not in old:
            raise SettingError(f"class_map: init has no class {source!r}; it has {', '.join(old) or 'none'}")
        if target not in new:
            raise SettingError(f"class_map: the data has no class {target!r}; it has {', '.join(new)}")
    renamed = [class_map.get(name, name) for name in old]
    for target in class_map.values():
        if renamed.count(target) > 1:
            both = " and ".join(repr(name) for name, other in zip(old, renamed, strict=True) if other == target)
            raise SettingError(
                f"class_map: {both} of init would both be {target!r}, whose head is that of one; map one of them"
            )
