"""Literal cases, with COCO's rule of 101 recalls: precision at recalls 0, 0.01 … 1, where a recall is reached."""

import math
from dataclasses import replace

import pytest
import torch

from model.coco_precision import CocoPrecision, coco_precision
from model.example import Truth, plain_truth
from model.postprocess import Detections

HERE = [0.0, 0.0, 10.0, 10.0]
THERE = [50.0, 50.0, 70.0, 60.0]
NOWHERE = [100.0, 100.0, 110.0, 110.0]


def truth(*objects: tuple[list[float], int], difficult: int = -1, crowd: int = -1) -> Truth:
    """Objects as (box, label); which of them is difficult, or a crowd."""
    boxes = torch.tensor([box for box, _ in objects]).reshape(-1, 4)
    plain = plain_truth(boxes, torch.tensor([label for _, label in objects], dtype=torch.int64))
    numbers = torch.arange(len(objects))
    return replace(plain, is_difficult=numbers == difficult, is_crowd=numbers == crowd)


def found(*detections: tuple[list[float], int, float]) -> Detections:
    """Detections as (box, label, score)."""
    boxes = torch.tensor([d[0] for d in detections]).reshape(-1, 4)
    labels = torch.tensor([d[1] for d in detections], dtype=torch.int64)
    return Detections(boxes, torch.tensor([d[2] for d in detections]), labels)


def precision(detections: Detections, objects: Truth, num_labels: int = 1) -> CocoPrecision:
    return coco_precision([detections], [objects], num_labels)


def test_right_wrong_right_of_three_objects():
    """Recall ⅓ at precision 1, ⅔ at ⅔: 34 recalls (0 to 0.33) at 1, 33 (to 0.66) at ⅔, the rest at 0."""
    truths = [truth((HERE, 1), (THERE, 1)), truth((HERE, 1))]
    result = coco_precision([found((HERE, 1, 0.9), (NOWHERE, 1, 0.8)), found((HERE, 1, 0.7))], truths, 1)
    assert result.map50 == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert result.map == pytest.approx(result.map50), "the boxes are exact"


@pytest.mark.parametrize(("width", "num_reached"), [(10, 10), (9, 9), (7.5, 6), (6, 3), (5, 1), (4.9, 0)])
def test_the_mean_is_over_ten_overlaps(width, num_reached):
    """A part of the object, so that the IoU is its share: it reaches each of 0.5, 0.55 … 0.95 up to that."""
    result = precision(found(([0.0, 0.0, float(width), 10.0], 1, 0.9)), truth((HERE, 1)))
    assert result.map == pytest.approx(num_reached / 10)
    assert (result.map50, result.map75) == (width >= 5, width >= 7.5)


def test_sizes():
    """10×10 is small, 50×50 medium, 100×100 large; only the large one is missed."""
    medium, large = [0.0, 0.0, 50.0, 50.0], [0.0, 100.0, 100.0, 200.0]
    objects = truth((HERE, 1), (medium, 1), (large, 1))
    result = precision(found((HERE, 1, 0.9), (medium, 1, 0.8)), objects)
    assert (result.map_small, result.map_medium, result.map_large) == (1, 1, 0)
    mask = replace(objects, areas=torch.tensor([2000.0, 2000.0, 2000.0]))
    outlined = precision(found((HERE, 1, 0.9), (medium, 1, 0.8)), mask)
    assert math.isnan(outlined.map_small)
    assert outlined.map_medium == pytest.approx(67 / 101), "two of three, by the outlines' areas"


def test_classes_are_apart_and_those_without_objects_do_not_count():
    result = precision(found((HERE, 1, 0.9), (THERE, 1, 0.8), (THERE, 3, 0.8)), truth((HERE, 1), (THERE, 2)), 3)
    assert result.per_class[:2] == (1, 0)
    assert math.isnan(result.per_class[2])
    assert result.map == 0.5


@pytest.mark.parametrize("kind", ["difficult", "crowd"])
def test_what_is_to_be_ignored_is_neither_missed_nor_wrong(kind):
    objects = truth((HERE, 1), (THERE, 1), **{kind: 1})
    assert precision(found((HERE, 1, 0.5)), objects).map == 1
    assert precision(found((THERE, 1, 0.9), (HERE, 1, 0.5)), objects).map == 1
    assert precision(found((NOWHERE, 1, 0.9), (HERE, 1, 0.5)), objects).map == 0.5


def test_any_number_may_lie_in_a_crowd():
    part = [52.0, 52.0, 56.0, 56.0]
    detections = found((part, 1, 0.9), (part, 1, 0.8), (HERE, 1, 0.5))
    assert precision(detections, truth((HERE, 1), (THERE, 1), crowd=1)).map == 1
    assert precision(detections, truth((HERE, 1), (THERE, 1), difficult=1)).map == pytest.approx(1 / 3)


def test_nothing_found_and_nothing_to_find():
    assert precision(found(), truth((HERE, 1))).map == 0
    for objects in (truth(), truth((HERE, 1), difficult=0)):
        assert math.isnan(precision(found((HERE, 1, 0.9)), objects).map)
    assert math.isnan(coco_precision([], [], 1).map)


def test_images_are_apart():
    assert coco_precision([found(), found((HERE, 1, 0.9))], [truth((HERE, 1)), truth()], 1).map == 0


def test_the_best_hundred_of_an_image_count():
    wrong = [(NOWHERE, 1, 0.9)] * 100
    assert precision(found(*wrong, (HERE, 1, 0.5)), truth((HERE, 1))).map == 0
    assert precision(found(*wrong[1:], (HERE, 1, 0.5)), truth((HERE, 1))).map == pytest.approx(1 / 100)
