import numpy as np
import pytest

from model.config import Architecture
from pipeline.labelled.choices import choose
from pipeline.labelled.layouts.source import new_image
from pipeline.labelled.record import LabelledImage

SIDE_PX = 1000


def images(
    *objects: tuple[str, float], is_crowd: bool = False, size_px: tuple[int, int] | None = (SIDE_PX, SIDE_PX)
) -> list[LabelledImage]:
    """An image per object: its class, and the side of its square box as a share of the image."""
    return [
        new_image(f"{number}.jpg", size_px, [name], [0, 0, SIDE_PX * side, SIDE_PX * side], [is_crowd])
        for number, (name, side) in enumerate(objects)
    ]


def chosen(found: list[LabelledImage]) -> dict[str, object]:
    return {choice.setting: choice.value for choice in choose(found, Architecture())}


def test_zooms_follow_how_much_the_sizes_of_a_class_differ() -> None:
    """Small and large classes, each of one size, need little; a class from half to twice its median needs that."""
    assert chosen(images(*[("a", 0.2), ("b", 0.8)] * 40)) == {"zoom_out_max": 1.2, "crop_min": 0.8}
    assert chosen(images(*[("a", 0.2), ("a", 0.4), ("a", 0.8)] * 30)) == {"zoom_out_max": 2.0, "crop_min": 0.5}
    sides = np.geomspace(0.11, 0.99, 99)
    assert chosen(images(*[("a", side) for side in sides])) == {"zoom_out_max": 2.7, "crop_min": 0.4}
    assert chosen(images(*[("a", 0.01), ("a", 0.2), ("a", 0.99)] * 30))["zoom_out_max"] == 4.0


def test_rare_classes_weigh_more() -> None:
    few = images(*[("a", 0.5)] * 90, *[("b", 0.5)] * 20, *[("c", 0.5)] * 1, *[("d", 0.5)] * 30)
    assert chosen(few)["class_weights"] == {"b": 2.1, "c": 3.0}
    assert "class_weights" not in chosen(images(*[("a", 0.5)] * 90, *[("b", 0.5)] * 30))


def test_small_classes_take_default_boxes_that_fit_less() -> None:
    """The smallest default boxes have 0.07 of the image's side."""
    assert chosen(images(*[("a", 0.5)] * 50, *[("b", 0.1)] * 30))["match_iou"] == 0.4
    assert "match_iou" not in chosen(images(*[("a", 0.5)] * 50, *[("b", 0.11)] * 30))


@pytest.mark.parametrize(
    "found",
    [[], images(*[("a", 0.5)] * 49), images(*[("a", 0.5)] * 90, size_px=None), images(*[("a", 0.5)] * 30)],
)
def test_too_little_is_not_measured(found: list[LabelledImage]) -> None:
    assert chosen(found) == {}


def test_crowds_are_not_measured() -> None:
    one_size = images(*[("a", 0.2)] * 60)
    assert chosen(one_size + images(*[("a", 0.9)] * 20, is_crowd=True)) == chosen(one_size)
    assert chosen(images(*[("a", 0.2)] * 60, is_crowd=True)) == {}


def test_a_choice_says_why() -> None:
    zoom, _, weights = choose(images(*[("a", 0.5)] * 90, *[("b", 0.5)] * 10), Architecture())
    assert str(zoom) == "zoom_out_max: 1.2, as objects are 1.00 to 1.00 times as large as the median of their class"
    assert str(weights) == "class_weights: b=3.0, as these are rare beside a (90 objects): b 10"
