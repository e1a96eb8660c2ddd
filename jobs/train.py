"""Train a model package on labelled images, in one process."""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from jobs.evaluate import evaluate
from jobs.settings import TrainSettings
from model.config import Architecture, Kind, Preprocessing, TrainingSettings
from model.example import Examples
from model.loss import Losses
from model.package import ModelPackage, PackageRecord
from model.train import train
from pipeline.packages import check_free, write_package
from pipeline.voc import VocExamples, class_names, read_voc

IMAGENET_STD = (0.229, 0.224, 0.225)
"""With batch norm and fresh weights there is no Caffe range to keep to; this brings inputs near unit spread."""
REPORT_EVERY_STEPS = 20


def train_voc(settings: TrainSettings) -> dict[str, Any]:
    """Train on a VOC folder, measure on its validation split, write the package; its metrics.

    Raises:
        SettingError: the data can't be used, or the package could not be written at the end.
    """
    check_free(settings.output)
    annotations = read_voc(Path(settings.data), settings.train_split)
    names = class_names(annotations)
    examples = VocExamples(annotations, names)
    held_out = VocExamples(read_voc(Path(settings.data), settings.val_split), names)
    provenance = {"data": settings.data, "split": settings.train_split}
    package = train_package(examples, settings.name, names, settings.width, settings, provenance, settings.architecture)
    return finish(package, held_out, settings.output, f"{settings.data} {settings.val_split}")


def train_package(
    examples: Examples,
    name: str,
    labels: tuple[str, ...],
    width: float,
    settings: TrainingSettings,
    provenance: dict[str, Any],
    kind: Kind = "ssd300_vgg16",
) -> ModelPackage:
    """Train a network with batch norm from scratch, showing how it goes on standard error."""
    architecture = Architecture(kind=kind, width=width, batch_norm=True)
    preprocessing = Preprocessing(std=IMAGENET_STD)
    started = time.monotonic()

    def report(step: int, losses: Losses, images_per_s: float) -> None:
        if (step + 1) % REPORT_EVERY_STEPS == 0 or step + 1 == settings.num_steps:
            left_s = (settings.num_steps - step - 1) * settings.batch_size / images_per_s
            print(
                f"step {step + 1} of {settings.num_steps} · localization {losses.localization:.3f} · "
                f"classification {losses.classification:.3f} · {images_per_s:.1f} images/s · {left_s:.0f} s left",
                file=sys.stderr,
            )

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = train(examples, architecture, preprocessing, len(labels) + 1, settings, report, device)
    provenance |= {
        "settings": settings.model_dump(mode="json"),
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - started),
    }
    weights = {key: _stored(tensor) for key, tensor in network.state_dict().items()}
    record = PackageRecord(
        name=name, architecture=architecture, class_names=labels, preprocessing=preprocessing, provenance=provenance
    )
    return ModelPackage(record, weights)


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """Half the bytes: weights lose less in float16 than inference in bfloat16 does."""
    return tensor.cpu().half() if tensor.is_floating_point() else tensor.cpu()


def finish(package: ModelPackage, held_out: Examples, url: str, data: str) -> dict[str, Any]:
    """Measure a package on held-out examples and write it with its metrics; the metrics."""
    metrics = {"data": data} | evaluate(package, held_out)
    write_package(ModelPackage(package.record.model_copy(update={"metrics": metrics}), package.weights), url)
    return metrics
