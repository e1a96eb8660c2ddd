"""The quantization of a model package to int8, with the loss of quality that it brings."""

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from model.example import Examples
from model.openvino_network import quantize
from model.package import ModelPackage
from model.package_files import PackageError
from model.preprocess import resize
from pipeline.errors import SettingError, TargetMissedError
from pipeline.evaluation.evaluate import evaluate, read_examples
from pipeline.evaluation.settings import QuantizeSettings
from pipeline.registry.packages import check_free, read_package, unusable, write_package
from pipeline.settings import LOCAL, LOCAL_RAY

SEED = 0
"""The seed of the choice of images to calibrate with."""


@dataclass(frozen=True)
class Quantized:
    """The result of a quantization."""

    output: str
    model_digest: str
    quantized_from: str
    """The digest of the package whose weights were quantized."""
    num_calibration_images: int
    map: float
    """COCO's mAP in int8."""
    float_map: float
    """COCO's mAP of the package that was quantized, in the precision of the settings."""


def quantize_on_data(settings: QuantizeSettings) -> Quantized:
    """Quantize a package, measure it next to the original, and write it.

    Raises:
        SettingError: the package or the data can't be used, OpenVINO is not installed, or nothing can be written.
        TargetMissedError: int8 loses more mAP than it may. Nothing is written.
    """
    if settings.address in (LOCAL, LOCAL_RAY):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # int8 is for CPUs; both packages are measured there
    check_free(settings.output)
    package = read_package(settings.model)
    if package.record.quantized:
        raise SettingError(f"model {settings.model!r} is quantized already; give the package that it was made of")
    examples = read_examples(settings.data, settings.split, package)
    calibration = read_examples(settings.data, settings.calibration_split, package, [settings.split])
    num_images = min(settings.num_calibration_images, len(calibration))
    try:
        as_floats = evaluate(package, examples, settings).metrics.summary()
        if as_floats["map"] is None:
            raise SettingError(f"split {settings.split!r} of {', '.join(settings.data)} has no objects to measure on")
        with redirect_stdout(sys.stderr):  # NNCF prints its progress
            made = quantize(package, _sample(calibration, num_images, package.record.architecture.image_size_px))
        as_int8 = evaluate(made, examples, settings.model_copy(update={"precision": "auto"})).metrics.summary()
    except PackageError as error:
        raise unusable(settings.model, error) from error
    lost = as_floats["map"] - as_int8["map"]
    if lost > settings.max_map_loss:
        raise TargetMissedError(
            f"max_map_loss: int8 has an mAP of {as_int8['map']:.4f}, and the package {as_floats['map']:.4f}: it loses {lost:.4f}, more "
            f"than {settings.max_map_loss:g}; calibrate with more images, or allow more"
        )
    origin = {"quantized_from": package.digest, "calibration": _origin(settings, num_images)}
    write_package(_with_origin(made, origin, as_int8 | {"float_map": as_floats["map"]}), settings.output)
    return Quantized(settings.output, made.digest, package.digest, num_images, as_int8["map"], as_floats["map"])


def _sample(examples: Examples, num_images: int, size_px: int) -> Iterator[Tensor]:
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(SEED))
    return (resize(examples[int(index)].image, size_px) for index in order[:num_images])


def _origin(settings: QuantizeSettings, num_images: int) -> dict[str, Any]:
    return {"split": settings.calibration_split, "num_images": num_images, "seed": SEED}


def _with_origin(package: ModelPackage, origin: dict[str, Any], metrics: dict[str, Any]) -> ModelPackage:
    provenance = package.record.provenance | origin
    return replace(package, record=package.record.model_copy(update={"provenance": provenance, "metrics": metrics}))
