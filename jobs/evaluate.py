"""Measure a model package on labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from jobs.page import write_page
from jobs.training_page import render
from model.detector import Detector
from model.example import Examples
from model.metrics import Metrics, measure
from model.package import ModelPackage
from model.postprocess import Detections
from pipeline.dataset import read_clean
from pipeline.examples import LabelledExamples
from pipeline.packages import read_package
from pipeline.train_loop import detect


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what was found in each image, in their order, best first."""

    metrics: Metrics
    found: Sequence[Detections]


def evaluate_on_data(model: str, data: Sequence[str], split: str, page: str | None = None) -> Evaluation:
    """Measure the package at a URL on a split of data sets; see `evaluate`. Write a page about it, where one is named.

    Raises:
        SettingError: the package or the data can't be used, the data has classes that the package lacks, or the page
            can't be written.
    """
    package = read_package(model)
    examples = LabelledExamples(read_clean(data, split), package.record.class_names)
    if page:  # What can't be written is told before an hour of detecting.
        write_page(page, "This evaluation has not ended.", "page")
    evaluation = evaluate(package, examples)
    if page:
        name = f"{' '.join(data)} {split}"
        write_page(page, render(package, evaluation.metrics, evaluation.found, examples, name), "page")
    return evaluation


def evaluate(package: ModelPackage, examples: Examples) -> Evaluation:
    """Detect in each image and compare with what stands in it.

    Images pass the same decoder, resize and detector as in a run.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = Detector(package, device)
    found, truths = zip(*(detect(detector, examples, index) for index in range(len(examples))), strict=True)
    return Evaluation(measure(found, truths, package.record.class_names), found)
