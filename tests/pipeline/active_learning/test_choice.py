"""Which images are chosen, on arrays."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.active_learning.candidates import Candidates
from pipeline.active_learning.choice import ClassValues, choose, class_values, uncertainties

HERE, THERE = (0, 0, 10, 10), (20, 20, 30, 30)


def candidates(*images, names=("cat", "dog")) -> Candidates:
    """Images, each of boxes (class, score, corners)."""
    boxes = [box for image in images for box in image]
    return Candidates(
        uris=pa.array([f"{number}.jpg" for number in range(len(images))]),
        sizes_px=np.full((len(images), 2), 40, np.int32),
        first_boxes=np.cumsum([0, *map(len, images)]),
        class_names=names,
        classes=np.array([label for label, _, _ in boxes], np.int32),
        scores=np.array([score for _, score, _ in boxes], np.float32),
        boxes_xyxy=np.array([corners for _, _, corners in boxes], np.float32).reshape(-1, 4),
    )


def chosen(images: Candidates, budget: int = 10, disagreements=None, earlier=()) -> list[int]:
    return [
        choice.image for choice in choose(images, class_values(images, 0.5, disagreements or {}), budget, list(earlier))
    ]


@pytest.mark.parametrize(
    ("score", "uncertain"), [(0.05, 0), (0.1, 0.2), (0.25, 0.5), (0.5, 1), (0.75, 0.5), (0.9, 0.2), (1, 0)]
)
def test_how_uncertain_a_box_is(score: float, uncertain: float) -> None:
    assert uncertainties(np.array([score], np.float32), 0.5) == pytest.approx(uncertain, abs=1e-6)


def test_uncertain_images_come_first_and_certain_ones_not_at_all() -> None:
    images = candidates([(0, 1.0, HERE)], [(0, 0.8, HERE)], [(0, 0.5, HERE)], [], [(0, 0.02, HERE)])
    assert chosen(images) == [2, 1]
    assert chosen(images, budget=1) == [2]


def test_a_rare_class_comes_before_more_of_a_common_one() -> None:
    common = [[(0, 0.5, HERE), (0, 0.5, THERE), (0, 0.5 + shift / 100, (5, 5, 9, 9 + shift))] for shift in range(3)]
    assert chosen(candidates(*common, [(1, 0.4, HERE)]), budget=2) == [0, 3]


def test_boxes_on_which_models_disagree_count() -> None:
    images = candidates([(0, 0.5, HERE)], [(0, 1.0, HERE)], [])
    assert chosen(images, disagreements={(1, 0): 2, (2, 1): 1}) == [1, 2, 0]


def test_of_images_that_look_alike_one_is_chosen() -> None:
    """As one box is at almost the same place with almost the same score. Elsewhere, surer, or of another class it is something new."""
    near = (0, 0, 10, 10.5)
    images = candidates(
        [(0, 0.5, HERE)], [(0, 0.48, near)], [(0, 0.5, THERE)], [(0, 0.65, HERE)], [(1, 0.5, HERE)],
        [(0, 0.5, HERE), (0, 0.5, THERE)],
    )  # fmt: skip
    assert set(chosen(images)) == {0, 2, 3, 4, 5}


def test_images_of_other_sizes_do_not_look_alike() -> None:
    images = candidates([(0, 0.5, HERE)], [(0, 0.5, HERE)])
    assert chosen(images) == [0]
    images.sizes_px[1] = 80
    assert chosen(images) == [0, 1]


def test_what_was_chosen_earlier_is_not_chosen_nor_what_looks_like_it() -> None:
    images = candidates([(0, 0.5, HERE)], [(0, 0.48, HERE)], [(0, 0.5, THERE)])
    assert chosen(images, earlier=[0]) == [2]


def test_the_choice_is_that_of_all_gains_computed_anew() -> None:
    """And not only of those images that came first."""
    random = np.random.default_rng(3)
    images = [
        [
            (int(random.integers(5)), float(random.uniform()), random.uniform(0, 40, 4))
            for _ in range(random.integers(6))
        ]
        for _ in range(200)
    ]
    found = candidates(*images, names=tuple("abcde"))
    values = class_values(found, 0.5, {})
    dense = np.zeros((200, 5))
    owners = np.repeat(np.arange(200), np.diff(values.first))
    dense[owners, values.classes] = values.values
    totals, expected = np.zeros(5), list[int]()
    for _ in range(30):
        gains = (np.sqrt(totals + dense) - np.sqrt(totals)).sum(axis=1)
        gains[expected] = -1
        expected.append(int(gains.argmax()))
        totals += dense[expected[-1]]
    choices = choose(found, values, 30)
    assert [choice.image for choice in choices] == expected
    gains = [choice.gain for choice in choices]
    assert gains == sorted(gains, reverse=True)


def test_the_values_of_an_image_are_its_own() -> None:
    values = class_values(
        candidates([(1, 0.5, HERE)], [], [(0, 0.5, HERE), (0, 0.75, THERE), (1, 0.25, HERE)]), 0.5, {}
    )
    assert values.first.tolist() == [0, 1, 1, 3]
    assert values.classes.tolist() == [1, 0, 1]
    assert values.values.tolist() == pytest.approx([1, 1.5, 0.5])
    assert isinstance(values, ClassValues)
    assert values.alone().tolist() == pytest.approx([1, 0, 1.5**0.5 + 0.5**0.5])
