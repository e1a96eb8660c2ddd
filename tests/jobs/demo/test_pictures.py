"""Drawn pictures: the same from the same seed, with boxes that fit what is drawn."""

import numpy as np
import pytest

from jobs.demo.pictures import CLASS_NAMES, MIN_VISIBLE, Visibility, _place, _tight_box, draw_picture, object_mask


def test_a_seed_gives_the_same_picture_again() -> None:
    first, again, other = draw_picture(7), draw_picture(7), draw_picture(8)
    assert first.image.mode == "RGB"
    assert first.image.tobytes() == again.image.tobytes() != other.image.tobytes()
    np.testing.assert_array_equal(first.boxes_xyxy, again.boxes_xyxy)
    np.testing.assert_array_equal(first.labels, again.labels)


def test_boxes_lie_inside_and_all_kinds_occur() -> None:
    seen: set[int] = set()
    for seed in range(60):
        picture = draw_picture(seed)
        assert picture.boxes_xyxy.shape == (len(picture.labels), 4)
        assert (picture.boxes_xyxy >= 0).all()
        assert (picture.boxes_xyxy[:, 2:] <= picture.image.size).all()
        assert (picture.boxes_xyxy[:, 2:] - picture.boxes_xyxy[:, :2] >= 4).all()
        seen |= set(picture.labels.tolist())
    assert seen == set(range(1, len(CLASS_NAMES) + 1))


def test_a_circle_fills_its_box() -> None:
    mask = object_mask("circle", 60, 0.0)
    left, top, right, bottom = _tight_box(mask, left=10, top=20)
    assert (right - left, bottom - top) == pytest.approx((60, 60), abs=1)
    assert (left + right) / 2 - 10 == pytest.approx(mask.shape[1] / 2, abs=1)
    assert (top + bottom) / 2 - 20 == pytest.approx(mask.shape[0] / 2, abs=1)
    assert (mask > 127).sum() == pytest.approx(np.pi * 30**2, rel=0.03)


def test_a_ring_has_a_hole_and_a_circle_none() -> None:
    middle = object_mask("circle", 60, 0.0).shape[0] // 2
    assert object_mask("circle", 60, 0.0)[middle, middle] == 255
    assert object_mask("ring", 60, 0.0)[middle, middle] == 0


def test_nothing_hides_more_than_it_may() -> None:
    """On 40×40 pixels an object of 30×30 is there; another of that size finds no place, as it would hide over 40%."""
    owner = np.full((40, 40), -1)
    owner[5:35, 5:35] = 0
    objects = [Visibility(area=900, visible=900)]
    assert _place(np.full((38, 38), 255, np.uint8), owner, objects, np.random.default_rng(0)) is None
    assert objects == [Visibility(900, 900)]

    left, top, cut = _place(np.full((10, 10), 255, np.uint8), owner, objects, np.random.default_rng(0)) or (0, 0, owner)
    assert (owner[top : top + cut.shape[0], left : left + cut.shape[1]] == 1).all()
    assert objects[0].visible == (owner == 0).sum() >= MIN_VISIBLE * 900
