from datetime import date

import numpy as np
import pytest

from pipeline.report.counts import ClassCounts, RunCounts
from pipeline.report.drift import Series, change_point, find_shifts, main_place

RNG = np.random.default_rng(0)


def run(
    number: int, rings: float = 0.15, images: int = 1000, failed: int = 5, score: float = 0.8, boxes: int = 5
) -> RunCounts:
    """A night with rings and stars; `rings` is the share of boxes."""
    num_boxes = images * boxes
    num_rings = int(RNG.binomial(num_boxes, rings))
    counts = RunCounts(
        f"r{number:02}", date(2026, 11, 1 + number), images, failed, {boxes - 1: images // 2, boxes + 1: images // 2}
    )
    for name, found, mean in (("ring", num_rings, score), ("star", num_boxes - num_rings, 0.8)):
        counts.classes[name] = ClassCounts(found, found * mean, found * (mean**2 + 0.01))
    return counts


def test_nights_that_are_alike_have_no_changes():
    for _ in range(20):
        assert find_shifts([run(number) for number in range(8)]) == []


def test_a_class_that_becomes_rare():
    shifts = find_shifts([*(run(number) for number in range(6)), *(run(number, rings=0.08) for number in (6, 7, 8))])
    assert {(shift.quantity, shift.class_name) for shift in shifts} == {("class_share", "ring")}
    (shift,) = shifts
    assert (shift.began_run, shift.began_on, shift.num_before) == ("r06", date(2026, 11, 7), 5)
    assert shift.now == pytest.approx(0.08, abs=0.01)
    assert shift.before == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize(
    ("changed", "quantity", "class_name"),
    [
        ({"failed": 300}, "failed_share", None),
        ({"boxes": 9}, "boxes_per_image", None),
        ({"score": 0.6}, "mean_score", "ring"),
    ],
)
def test_other_changes_of_the_last_night(changed, quantity, class_name):
    shifts = find_shifts([*(run(number) for number in range(4)), run(4, **changed)])
    assert [(shift.quantity, shift.class_name, shift.began_run) for shift in shifts] == [(quantity, class_name, "r04")]


def test_a_class_that_is_new_and_one_that_is_gone():
    nights = [run(number) for number in range(4)]
    nights[-1].classes["moon"] = ClassCounts(2000, 1600, 1300)
    assert ("class_share", "moon") in {(shift.quantity, shift.class_name) for shift in find_shifts(nights)}
    nights = [run(number) for number in range(4)]
    del nights[-1].classes["ring"]
    assert ("class_share", "ring") in {(shift.quantity, shift.class_name) for shift in find_shifts(nights)}


def test_small_changes_and_small_nights_are_not_reported():
    assert find_shifts([*(run(number) for number in range(6)), run(6, rings=0.165)]) == []
    assert find_shifts([*(run(number, images=20) for number in range(6)), run(6, rings=0.05, images=10)]) == []


def test_nights_that_always_differ_are_usual():
    """Cameras of weekdays and of Sundays, for example."""
    shares = [0.1, 0.2, 0.12, 0.19, 0.09, 0.21, 0.11, 0.2]
    assert find_shifts([run(number, rings=share, images=10_000) for number, share in enumerate(shares)]) == []


@pytest.mark.parametrize(
    "runs", [[], [run(0)], [run(0, images=0, failed=0), run(1)], [run(0), run(1, images=0, failed=0)]]
)
def test_too_little_to_compare(runs):
    assert find_shifts(runs) == []


def test_two_runs_are_compared_by_their_observations():
    start, errors = change_point(Series(np.array([0.5, 0.6]), np.array([100.0, 100.0]), 0.25))
    assert (start, errors) == (1, pytest.approx(0.1 / (0.25 * 2 / 100) ** 0.5))


@pytest.mark.parametrize(
    ("before", "now", "place"),
    [
        ({"1": (10, 100), "7": (10, 100)}, {"1": (10, 100), "7": (2, 100)}, "7"),
        ({"1": (10, 100), "7": (10, 100)}, {"1": (6, 100), "7": (6, 100)}, None),
        ({"1": (10, 100)}, {"1": (1, 100)}, None),
        ({"1": (10, 100)}, {"1": (10, 100), "8": (90, 100)}, "8"),
        ({"1": (10, 100), "7": (40, 100)}, {"1": (10, 100)}, "7"),
        ({"9 May": (50, 50), "10 May": (10, 50)}, {"11 May": (10, 50), "12 May": (10, 50)}, None),
        ({}, {}, None),
    ],
)
def test_the_place_of_a_change(before, now, place):
    assert main_place(before, now) == place
