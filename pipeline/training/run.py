"""Train a model package on labelled images."""

import logging
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from model.example import Examples
from model.package import ModelPackage
from model.package_files import PackageRecord
from model.step import class_weights
from pipeline.cluster.connect import cluster
from pipeline.errors import SettingError
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.inputs.class_names import read_class_names
from pipeline.labelled.choices import choose
from pipeline.labelled.dataset import read_clean
from pipeline.labelled.examples import LabelledExamples, UnreadableError
from pipeline.labelled.layouts.source import UnsizedError
from pipeline.labelled.record import DataError, LabelledImage, class_names, num_to_learn_from
from pipeline.redaction import redacted, redacted_json
from pipeline.registry.packages import RUNS_FOLDER, check_free, write_package
from pipeline.settings import ClusterSettings, DetectionSettings
from pipeline.training.driver import check_same_run, train
from pipeline.training.history import TrainingHistory
from pipeline.training.provenance import provenance
from pipeline.training.settings import ClusterTraining, TrainSettings
from pipeline.training.start import Start, start_of
from pipeline.training.tracking import Tracker, tracked

logger = logging.getLogger(__name__)

PLAIN_LEARNING_RATE = 0.001
"""The learning rate of a network without batch norm. Source: Liu et al. 2016, section 3."""
MAX_LOOKED_AT = 20_000
"""The number of images to learn from up to which a training looks at each before it starts."""
MAX_UNREADABLE = 0.1
"""The share of images that may be left out because they can't be read."""
"""The folder next to the package with a folder per run, for its checkpoints."""


@dataclass(frozen=True)
class TrainingRun:
    """A training under a name. A later training under the same name resumes it."""

    name: str
    settings: ClusterTraining
    url: str
    """The folder with the training's checkpoints."""
    data: dict[str, Any]
    """The data that is learned from, in the form in which a later training is compared with it."""


@dataclass(frozen=True)
class Training:
    """The result of a training."""

    evaluation: Evaluation
    """The measurement of the package that was written, with its metrics in it."""
    measured_on: str
    """The name of the data that it was measured on, for people."""
    history: TrainingHistory


def train_on_data(settings: TrainSettings) -> Training:
    """Train on a split of labelled images, measure on another, and write the package.

    Raises:
        SettingError: the data or the package to start from can't be used, or no package could be written at the end.
    """
    check_free(settings.output)
    images, names = of_classes(read_sized(settings, settings.train_split, [settings.val_split]), settings)
    start = start_of(settings, names)
    if len(images) <= MAX_LOOKED_AT:
        images = readable(images, start.examples(images, names), settings.train_split)
    settings = suited_to(start, settings, images)
    examples = start.examples(images, names, settings.crop_min)
    if not num_to_learn_from(images):
        raise DataError(
            f"train_split {settings.train_split!r}: nothing to learn from in {len(images):,} images: no object, or none but crowds"
        )
    measured = known(read_sized(settings, settings.val_split), names, settings.val_split)
    is_other = settings.val_split != settings.train_split  # else it is meant
    if is_other and measured and {image.uri for image in measured} <= {image.uri for image in images}:
        raise DataError(
            f"val_split {settings.val_split!r}: all of its images are in train_split {settings.train_split!r}, too; nothing would be held out"
        )
    measured = readable(measured, start.examples(measured, names), settings.val_split)
    if not num_to_learn_from(measured):
        raise DataError(
            f"val_split {settings.val_split!r}: no object to measure on in {len(measured):,} images; name another by --val-split"
        )
    held_out = start.examples(measured, names)
    runs = settings.storage or f"{settings.output.rstrip('/')}/{RUNS_FOLDER}"
    run = TrainingRun(settings.name, settings, f"{runs.rstrip('/')}/{settings.name}", {"data": examples.digest})
    origin = start.provenance | {
        "data": list(settings.data),
        "split": settings.train_split,
        "num_images": len(images),
        "data_digest": run.data["data"],
    }
    measured_on = f"{' '.join(settings.data)} {settings.val_split}"
    begun = begin(start, names, run)
    with tracked(settings, run.name, run.url, redacted_json(settings.model_dump(mode="json"))) as trackers:
        with cluster(settings.address):
            package, history = train_from(begun, examples, held_out, run, origin, trackers)
            where = DetectionSettings(**settings.model_dump(include=set(ClusterSettings.model_fields)))
            evaluation = finish(package, held_out, settings.output, measured_on, where)
        for tracker in trackers:
            tracker.finish(evaluation.package.record.metrics)
    return Training(evaluation, measured_on, history)


def read_sized(settings: TrainSettings, split: str, beside: Collection[str] = ()) -> Sequence[LabelledImage]:
    """Return a split's images, without those whose boxes can't be known, as the image can't be read; raises as `read_clean` and `check_few`."""
    unsized: list[DataError] = []

    def on_broken(error: DataError) -> None:
        if not isinstance(error, UnsizedError):
            raise error
        unsized.append(error)

    images = read_clean(settings.data, split, beside, on_broken)
    check_few(unsized, len(images) + len(unsized), split)
    return images


def check_few(errors: Sequence[DataError], num_images: int, split: str) -> None:
    """Check that of a split's images no more than a tenth can't be read.

    Raises:
        DataError: there are more.
    """
    if len(errors) > MAX_UNREADABLE * num_images:
        raise DataError(
            f"{errors[0]}; {len(errors):,} of the {num_images:,} images of {split!r} can't be read; ssd-batch data check names them"
        )
    if errors:
        logger.warning(
            "%s: %s of %s images can't be read, and are left out: %s", split, len(errors), f"{num_images:,}", errors[0]
        )


def readable(images: Sequence[LabelledImage], examples: LabelledExamples, split: str) -> Sequence[LabelledImage]:
    """Return the images that can be read and decoded, with their sizes, and log which are left out.

    Raises:
        DataError: more than a tenth can't be, or an image has another size than annotated.
    """
    logger.info("%s: looking at all %s images", split, f"{len(images):,}")
    looked = examples.look_at_all()
    check_few([found for found in looked if isinstance(found, UnreadableError)], len(images), split)
    return [
        image if image.size_px else replace(image, size_px=found)
        for image, found in zip(images, looked, strict=True)
        if not isinstance(found, UnreadableError)
    ]


def of_classes(
    images: Sequence[LabelledImage], settings: TrainSettings
) -> tuple[Sequence[LabelledImage], tuple[str, ...]]:
    """Return the images with only the objects of the classes to learn, and these classes.

    Raises:
        SettingError: the file of class names can't be read, or has a class that no object is of.
    """
    found = class_names(images)
    if not settings.class_names:
        return images, found
    names = read_class_names(settings.class_names)
    if unknown := sorted(set(names) - set(found)):
        raise SettingError(f"class_names: no object is of class {unknown[0]!r}; there are {', '.join(found)}")
    if left_out := sorted(set(found) - set(names)):
        logger.info("left out, as class_names does not have them: %s", ", ".join(left_out))
    return [image.only(np.isin(image.class_names, names)) for image in images], names


def known(images: Sequence[LabelledImage], names: tuple[str, ...], split: str) -> Sequence[LabelledImage]:
    """Return the images with only the objects of the classes that are learned, and log which others there are.

    Raises:
        DataError: no object is left.
    """
    if others := sorted(set(class_names(images)) - set(names)):
        if not set(class_names(images)) & set(names):
            raise DataError(
                f"val_split {split!r}: no object is of a class that is learned; it has {', '.join(others)}, and {', '.join(names)} are learned"
            )
        logger.warning("%s: objects of classes that are not learned are left out: %s", split, ", ".join(others))
    return [image.only(np.isin(image.class_names, names)) for image in images] if others else images


def suited_to(start: Start, settings: TrainSettings, images: Sequence[LabelledImage]) -> TrainSettings:
    """Return the settings with what the start and the images need, and with epochs as steps. Settings that are given stay, and others are logged."""
    changes: dict[str, Any] = {}
    for choice in choose(images, start.architecture) if settings.follow_data else ():
        if choice.setting not in settings.model_fields_set:
            changes[choice.setting] = choice.value
            logger.info("%s", choice)
    if not start.architecture.batch_norm and "learning_rate" not in settings.model_fields_set:
        changes["learning_rate"] = PLAIN_LEARNING_RATE
        logger.info("learning_rate: %s, as the start has no batch norm", PLAIN_LEARNING_RATE)
    if settings.epochs:
        changes["num_steps"] = math.ceil(settings.epochs * len(images) / settings.batch_size)
        logger.info(
            "%g epochs of %s images are %s steps", settings.epochs, f"{len(images):,}", f"{changes['num_steps']:,}"
        )
    return settings.model_copy(update=changes)


def begin(start: Start, labels: tuple[str, ...], run: TrainingRun) -> ModelPackage:
    """Return the model to train, with the weights that it starts from. This needs no cluster.

    Raises:
        SettingError: the run was begun with other settings, its folder can't be used, or a class weight names no class.
    """
    try:
        class_weights(run.settings, labels)
    except ValueError as error:
        raise SettingError(str(error)) from error
    record = PackageRecord(
        name=run.name, architecture=start.architecture, class_names=labels, preprocessing=start.preprocessing
    )
    begun = ModelPackage(record, start.weights)
    network = record.architecture.model_dump(mode="json") | {"start": begun.digest}
    check_same_run(run.url, run.settings, run.data | network)
    return begun


def train_from(
    begun: ModelPackage,
    examples: Examples,
    held_out: Examples,
    run: TrainingRun,
    origin: dict[str, Any],
    trackers: Sequence[Tracker] = (),
) -> tuple[ModelPackage, TrainingHistory]:
    """Train on the cluster that this process is in, and return the package and its history; raises as `pipeline.training.driver.train`."""
    started = time.monotonic()
    trained = train(begun, examples, held_out, run.settings, run.url, trackers)
    origin = redacted_json(origin) | provenance(run.settings, trained.history, time.monotonic() - started)
    weights = {key: _stored(tensor) for key, tensor in trained.weights.items()}
    return ModelPackage(begun.record.model_copy(update={"provenance": origin}), weights), trained.history


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """Return a weight in float16, for half the bytes: weights lose less in float16 than inference in bfloat16 does."""
    return tensor.cpu().half() if tensor.is_floating_point() else tensor.cpu()


def finish(
    package: ModelPackage, held_out: Examples, url: str, data: str, where: DetectionSettings | None = None
) -> Evaluation:
    """Measure a package on held-out examples, on the cluster that this process is in, and write it with its metrics.

    Args:
        package: what was trained.
        held_out: the images to measure on.
        url: the place of the package.
        data: the name of the held-out images, for people.
        where: how long nodes are waited for, and whether a GPU is required; by default as on this machine.
    """
    evaluation = evaluate(package, held_out, where or DetectionSettings())
    metrics = {"data": redacted(data)} | evaluation.metrics.summary()
    package = ModelPackage(package.record.model_copy(update={"metrics": metrics}), package.weights)
    write_package(package, url)
    return replace(evaluation, package=package)
