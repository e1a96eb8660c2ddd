import numpy as np
import pytest

from model.boxes import cxcywh_to_xyxy
from model.config import Architecture
from model.default_boxes import default_boxes
from pipeline.labelled.box_sizes import CHUNK, best_overlaps, describe_sizes, shares_xyxy
from pipeline.labelled.record import LabelledImage

SSD300 = Architecture()


def test_shares_are_of_each_side():
    none = np.zeros(1, dtype=np.bool_)
    image = LabelledImage("x", None, np.array([[5.0, 5, 20, 10]]), ("cat",), none, none, np.zeros(1))
    assert shares_xyxy(image, (20, 10)).tolist() == [[0.25, 0.5, 1, 1]]
    assert shares_xyxy(image, (10, 10)).tolist() == [[0.5, 0.5, 1, 1]], "clipped"


def test_a_default_box_fits_itself():
    """More boxes than are compared at a time."""
    boxes = cxcywh_to_xyxy(default_boxes(SSD300))[2000 : 2000 + CHUNK + 3].double().numpy()
    assert best_overlaps(boxes, SSD300) == pytest.approx(np.ones(CHUNK + 3))


def test_a_small_square_fills_a_quarter_of_the_smallest_default_box():
    """That has 0.07 · 300 = 21 px, at cells of 8 px; its tenth centre stands at 4 + 9 · 8 = 76 px."""
    centre, side = 76 / 300, 10.5 / 300
    low, high = centre - side / 2, centre + side / 2
    assert best_overlaps(np.array([[low, low, high, high]]), SSD300) == pytest.approx([0.25], abs=1e-5)


def test_sizes_by_hand():
    boxes = np.array([[0, 0, 0.1, 0.2], [0, 0, 0.5, 0.1], [0, 0, 1, 1]])
    sizes = describe_sizes(boxes, np.array([0.4, 0.5, 0.9]), 300)
    assert (sizes["num_objects"], sizes["share_below_half"]) == (3, 0.3333)
    assert [sizes["shorter_side_px"][name] for name in ("min", "median", "max")] == [30, 30, 300]
    assert [sizes["longer_side_px"][name] for name in ("min", "median", "max")] == [60, 150, 300]
    assert sizes["best_overlap"]["median"] == 0.5


def test_no_objects():
    assert best_overlaps(np.zeros((0, 4)), SSD300).shape == (0,)
    assert describe_sizes(np.zeros((0, 4)), np.zeros(0), 300) == {"num_objects": 0}
