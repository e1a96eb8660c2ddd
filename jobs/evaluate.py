"""Measure a model package on labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.page import write_page
from jobs.settings import EvaluateSettings
from jobs.training_page import render
from model.example import Examples
from model.metrics import Metrics, measure
from model.package import ModelPackage
from model.postprocess import Detections
from pipeline.dataset import read_clean
from pipeline.evaluate import detect_all
from pipeline.examples import LabelledExamples
from pipeline.packages import read_package
from pipeline.settings import DetectionSettings


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what was found in each image, in their order, best first."""

    metrics: Metrics
    found: Sequence[Detections]


def evaluate_on_data(settings: EvaluateSettings) -> Evaluation:
    """Measure a package on a split of data sets; see `evaluate`. Write a page about it, where one is named.

    Raises:
        SettingError: the package or the data can't be used, the data has classes that the package lacks, or the page
            can't be written.
    """
    package = read_package(settings.model)
    examples = LabelledExamples(read_clean(settings.data, settings.split), package.record.class_names)
    if settings.page:  # What can't be written is told before an hour of detecting.
        write_page(settings.page, "This evaluation has not ended.", "page")
    evaluation = evaluate(package, examples, settings)
    if settings.page:
        name = f"{' '.join(settings.data)} {settings.split}"
        write_page(settings.page, render(package, evaluation.metrics, evaluation.found, examples, name), "page")
    return evaluation


def evaluate(package: ModelPackage, examples: Examples, settings: DetectionSettings) -> Evaluation:
    """Detect in each image and compare with what stands in it; raises as `pipeline.evaluate.detect_all`.

    Images pass the same decoder, resize and detectors as in a run.
    """
    found, truths = detect_all(package, examples, settings)
    return Evaluation(measure(found, truths, package.record.class_names), found)
