"""Write a package for other libraries, checked on images before the file is kept."""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import Tensor

from model.export import SUFFIXES, ExportError, check, check_installed, export, load
from model.package import ModelPackage
from model.package_files import PackageError
from model.preprocess import resize
from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.images.decode import DecodeError, decode
from pipeline.inputs.listing import list_inputs, take_sample
from pipeline.registry.packages import read_package, unusable
from pipeline.registry.settings import ExportSettings
from pipeline.storage import store
from pipeline.urls import absolute


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    output: str
    model_digest: str
    num_images: int
    """The number of images that the file was checked on."""
    num_detections: int
    """The number of detections in them, each the same in the file and in the package."""


def export_model(settings: ExportSettings) -> Exported:
    """Write a package's detector or network in another format.

    Raises:
        SettingError: the package, the images or the output can't be used, or a library is missing.
        SsdBatchError: the file computes something else than the package, and is not kept.
    """
    package, suffix = read_package(settings.model), SUFFIXES[settings.format]
    url = absolute(settings.output)
    if not url.endswith(suffix):
        raise SettingError(f"output {settings.output!r} must end with {suffix} in the format {settings.format}")
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
        path = Path(folder, f"model{suffix}")
        try:
            check_installed(settings.format)
            images = list(_images(settings, package, Path(folder)))
            logging.getLogger("onnx_ir").setLevel(logging.ERROR)
            export(package, settings.format, settings.part, settings.batch_size, path)
            batches = (torch.stack(batch) for batch in _batches(images, settings.batch_size))
            num_detections = check(package, load(settings.format, path), settings.part, batches, len(images))
        except PackageError as error:
            raise unusable(settings.model, error) from error
        except ExportError as error:
            raise SsdBatchError(
                f"the file would not compute what the package does, and is not kept: {error}"
            ) from error
        try:
            for file in sorted(Path(folder).glob("model.*")):  # OpenVINO's numbers before the graph that names them
                store.write(f"{url.removesuffix(suffix)}{file.suffix}", file.read_bytes())
        except OSError as error:
            raise SettingError(f"output {settings.output!r} can't be written: {reason(error)}") from error
    return Exported(settings.output, package.digest, len(images), num_detections)


def _images(settings: ExportSettings, package: ModelPackage, folder: Path) -> Iterator[Tensor]:
    """Yield a sample of the images that can be decoded, resized to the network's input."""
    listed = folder / "images.parquet"
    list_inputs(settings.input, False, listed)
    take_sample(listed, settings.sample)
    side_px, num_readable = package.record.architecture.image_size_px, 0
    for uri in pq.read_table(listed, columns=["uri"])["uri"].to_pylist():
        try:
            pixels = decode(store.read(uri))
        except (OSError, DecodeError):
            continue
        num_readable += 1
        yield resize(pixels, side_px)
    if not num_readable:
        raise SettingError(f"input {', '.join(settings.input)}: none of its images can be read")


def _batches(images: list[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Yield batches of one size; the last is filled with the first images."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        yield [*batch, *(images[number % len(images)] for number in range(size - len(batch)))]
