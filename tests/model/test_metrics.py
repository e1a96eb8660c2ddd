import json

import pytest
import torch

from jobs.demo.pictures import CLASS_NAMES, draw_picture
from model.example import Truth, plain_truth
from model.metrics import measure
from model.postprocess import Detections

HERE, THERE = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 70.0, 60.0]


def one(*objects: tuple[list[float], int]) -> Truth:
    boxes = torch.tensor([box for box, _ in objects]).reshape(-1, 4)
    return plain_truth(boxes, torch.tensor([label for _, label in objects], dtype=torch.int64))


def seen(truth: Truth, scores: list[float]) -> Detections:
    return Detections(truth.boxes_xyxy[: len(scores)], torch.tensor(scores), truth.labels[: len(scores)])


def test_the_summary_has_all_that_people_compare():
    """A cat that is found and a dog that is not; no bird."""
    truth = one((HERE, 1), (THERE, 2))
    metrics = measure([seen(truth, [0.75])], [truth], ("cat", "dog", "bird"))
    summary = json.loads(json.dumps(metrics.summary()))
    assert summary == {
        "num_images": 1, "map": 0.5, "map50": 0.5, "map75": 0.5, "map_small": 0.5, "map_medium": None, "map_large": None,
        "voc_map_11pt": 0.5, "voc_map_all": 0.5, "per_class": {"cat": 1.0, "dog": 0.0}, "per_class_map": {"cat": 1.0, "dog": 0.0},
        "best_scores": {"cat": 0.75, "dog": 1.0},
    }  # fmt: skip
    assert metrics.curves.keys() == {"cat", "dog"}
    assert metrics.curves["cat"].scores.tolist() == [0.75]


def test_without_objects_there_is_nothing_to_tell():
    summary = measure([], [], ("cat",)).summary()
    assert (summary["num_images"], summary["map"], summary["voc_map_all"], summary["per_class"]) == (0, None, None, {})


def test_both_implementations_agree_at_half_overlap():
    """Drawn pictures: boxes moved and resized at random, some missed, some made up, labels mixed up.

    They differ by their rule of recalls, 101 points or all: at most a step of 0.01, for an object of a class.
    """
    generator = torch.Generator().manual_seed(1)
    truths, found = [], []
    for seed in range(80):
        picture = draw_picture(seed)
        truth = plain_truth(torch.from_numpy(picture.boxes_xyxy), torch.from_numpy(picture.labels))
        truths.append(truth)
        found.append(disturbed(truth, generator))
    summary = measure(found, truths, CLASS_NAMES).summary()
    assert 0.4 < summary["map50"] < 0.9
    assert summary["map"] < summary["map50"]
    assert summary["map50"] == pytest.approx(summary["voc_map_all"], abs=0.01)
    assert summary["voc_map_11pt"] == pytest.approx(summary["voc_map_all"], abs=0.05)


def disturbed(truth: Truth, generator: torch.Generator) -> Detections:
    count = len(truth.labels)
    sides = (truth.boxes_xyxy[:, 2:] - truth.boxes_xyxy[:, :2]).repeat(1, 2)
    boxes = truth.boxes_xyxy + 0.1 * sides * torch.randn(count, 4, generator=generator)
    made_up = truth.boxes_xyxy.flip(1) / 2
    low, high = torch.minimum(made_up[:, :2], made_up[:, 2:]), torch.maximum(made_up[:, :2], made_up[:, 2:])
    labels = torch.where(torch.rand(count, generator=generator) < 0.1, 1, truth.labels)
    kept = torch.rand(2 * count, generator=generator) < torch.tensor([0.9] * count + [0.3] * count)
    scores = torch.rand(2 * count, generator=generator) * torch.tensor([1.0] * count + [0.7] * count)
    all_boxes, all_labels = torch.cat((boxes, torch.cat((low, high), dim=1))), torch.cat((labels, truth.labels))
    order = scores[kept].argsort(descending=True)
    return Detections(all_boxes[kept][order], scores[kept][order], all_labels[kept][order])
