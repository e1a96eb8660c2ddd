"""Measure a model package on labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

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


def evaluate_on_data(model: str, data: Sequence[str], split: str) -> Evaluation:
    """Measure the package at a URL on a split of data sets; see `evaluate`.

    Raises:
        SettingError: the package or the data can't be used, or the data has classes that the package lacks.
    """
    package = read_package(model)
    return evaluate(package, LabelledExamples(read_clean(data, split), package.record.class_names))


def evaluate(package: ModelPackage, examples: Examples) -> Evaluation:
    """Detect in each image and compare with what stands in it.

    Images pass the same decoder, resize and detector as in a run.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = Detector(package, device)
    found, truths = zip(*(detect(detector, examples, index) for index in range(len(examples))), strict=True)
    return Evaluation(measure(found, truths, package.record.class_names), found)
