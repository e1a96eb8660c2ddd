"""Measure a model package on labelled images."""

import math
from pathlib import Path
from typing import Any

import torch

from model.detector import Detector
from model.evaluate import average_precisions
from model.example import Examples
from model.package import ModelPackage
from model.preprocess import resize
from pipeline.packages import read_package
from pipeline.voc import VocExamples, read_voc


def evaluate_voc(model: str, data: str, split: str) -> dict[str, Any]:
    """Measure the package at a URL on a split of a VOC folder; see `evaluate`."""
    package = read_package(model)
    return evaluate(package, VocExamples(read_voc(Path(data), split), package.record.class_names))


def evaluate(package: ModelPackage, examples: Examples) -> dict[str, Any]:
    """Mean average precision at IoU 0.5 over the classes that occur, by both of VOC's rules, and of each class.

    Images pass the same decoder, resize and detector as in a run.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = Detector(package, device)
    found, truths = [], []
    for index in range(len(examples)):
        example = examples[index]
        _, height_px, width_px = example.image.shape
        images = resize(example.image, detector.image_size_px)[None]
        found += detector(images, torch.tensor([[width_px, height_px]], dtype=torch.float32))
        truths.append(example.truth)
    names = package.record.class_names
    scored = {
        name: ap
        for name, ap in zip(names, average_precisions(found, truths, len(names)), strict=True)
        if not math.isnan(ap.all_points)
    }
    return {
        "num_images": len(examples),
        "voc_map_11pt": round(sum(ap.eleven_points for ap in scored.values()) / max(1, len(scored)), 4),
        "voc_map_all": round(sum(ap.all_points for ap in scored.values()) / max(1, len(scored)), 4),
        "per_class": {name: round(ap.all_points, 4) for name, ap in scored.items()},
    }
