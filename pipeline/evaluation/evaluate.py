"""Measure a model package on labelled images."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from model.example import Examples
from model.metrics import Metrics, measure
from model.package import ModelPackage
from model.package_files import PackageError
from model.postprocess import Detections
from pipeline.evaluation.detect_labelled import detect_all
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.labelled.dataset import read_clean
from pipeline.labelled.examples import LabelledExamples
from pipeline.registry.packages import read_package, unusable
from pipeline.settings import DetectionSettings


@dataclass(frozen=True)
class Evaluation:
    """The result of a measurement."""

    package: ModelPackage
    """The package that was measured."""
    examples: Examples
    """The labelled images that it was measured on."""
    metrics: Metrics
    found: Sequence[Detections]
    """The detections of each image, in the examples' order, best first."""


def evaluate_on_data(settings: EvaluateSettings) -> Evaluation:
    """Measure a package on a split of data sets; see `evaluate`.

    Raises:
        SettingError: the package or the data can't be used, or the data has classes that the package lacks.
    """
    package = read_package(settings.model, settings.precision, settings.test_time_flip)
    examples = read_examples(settings.data, settings.split, package)
    try:
        return evaluate(package, examples, settings)
    except PackageError as error:
        raise unusable(settings.model, error) from error


def read_examples(
    data: Sequence[str], split: str, package: ModelPackage, beside: Collection[str] = ()
) -> LabelledExamples:
    """Return a split of data sets, decoded as the package wants it; for `beside` see `read_labelled`.

    Raises:
        SettingError: the data can't be used, or has classes that the package lacks.
    """
    record = package.record
    min_side_px = record.preprocessing.min_side_px(record.architecture.image_size_px)
    return LabelledExamples(read_clean(data, split, beside), record.class_names, min_side_px)


def evaluate(package: ModelPackage, examples: Examples, settings: DetectionSettings) -> Evaluation:
    """Detect in each image and compare with its labels.

    Images pass the same decoder, resize and detectors as in a run.

    Raises:
        SsdBatchError: an image can't be read; see `pipeline.evaluation.detect_labelled.detect_all`.
    """
    found, truths = detect_all(package, examples, settings)
    return Evaluation(package, examples, measure(found, truths, package.record.class_names), found)
