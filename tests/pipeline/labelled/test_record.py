from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.labelled.record import (
    DataError,
    LabelledImage,
    class_names,
    clean,
    find_flaws,
    is_of_shares,
    num_to_learn_from,
    truths,
)


def image(*boxes: list[float], size_px: tuple[int, int] | None = (20, 10), names: str = "abcdefgh") -> LabelledImage:
    count = len(boxes)
    is_difficult = np.array([index == 0 for index in range(count)], dtype=np.bool_)
    return LabelledImage(
        "x.jpg", size_px, np.array(boxes, dtype=np.float64).reshape(-1, 4), tuple(names[:count]), is_difficult,
        np.zeros(count, dtype=np.bool_), np.arange(count, dtype=np.float64),
    )  # fmt: skip


def test_each_box_has_one_flaw_at_most():
    nan = float("nan")
    found = find_flaws(
        image([0, 0, 20, 10], [1, 1, nan, 4], [3, 3, 3, 8], [9, 3, 8, 8], [20, 0, 25, 5], [-5, 0, 0, 5], [-1, 2, 3, 4], [15, 5, 21, 8])
    )  # fmt: skip
    assert found.tolist() == [
        "", "not_a_number", "without_area", "swapped", "outside", "outside", "clipped", "clipped",
    ]  # fmt: skip
    assert find_flaws(image([9, 8, 3, 3], [21, 5, 15, 8], [25, 5, 20, 0])).tolist() == ["swapped", "swapped", "outside"]
    assert find_flaws(image()).tolist() == []


def test_without_an_annotated_size_only_two_borders_are_known():
    boxes = ([30, 30, 40, 40], [-1, 2, 3, 4], [-9, 0, -1, 5])
    assert find_flaws(image(*boxes, size_px=None)).tolist() == ["", "clipped", "outside"]
    ((cleaned,), _) = clean([image(*boxes, size_px=None)])
    assert cleaned.boxes_xyxy.tolist() == [[30, 30, 40, 40], [0, 2, 3, 4]]


def test_a_border_crossed_by_rounding_is_no_flaw():
    """0.0003 pixels: what shares of a side with few digits become."""
    ((cleaned,), counts) = clean([image([-0.0003, 0, 20.0003, 10])])
    assert (cleaned.boxes_xyxy.tolist(), counts) == ([[0, 0, 20, 10]], {})


def test_swapped_corners_are_mended():
    ((cleaned,), counts) = clean([image([9, 8, 3, 3], [25, 2, 15, 8])])
    assert (cleaned.boxes_xyxy.tolist(), counts) == ([[3, 3, 9, 8], [15, 2, 20, 8]], {"swapped": 2})


@pytest.mark.parametrize(
    ("boxes", "size_px", "are_shares"),
    [
        ([[0.1, 0.2, 0.3, 0.9], [0.5, 0.5, 1, 1]], (320, 240), True),
        ([[0.1, 0.2, 0.3, 0.9]], None, True),
        ([[0.1, 0.2, 0.3, 0.9], [1, 1, 5, 5]], (320, 240), False),
        ([[0, 0, 1, 1]], (1, 1), False),
        ([[0, 0, 0, 0]], (320, 240), False),
        ([], (320, 240), False),
    ],
)
def test_shares_of_the_sides_are_no_pixels(boxes, size_px, are_shares):
    """They would be boxes without area to speak of, and a training on nothing."""
    one = image(*boxes, size_px=size_px)
    assert is_of_shares(one) == are_shares
    if are_shares:
        with pytest.raises(DataError, match=r"x\.jpg: its boxes are within 0 to 1"):
            clean([one])


def test_crowds_are_nothing_to_learn_from():
    one = image([1, 1, 5, 5], [1, 1, 5, 5])
    crowds = replace(one, is_crowd=np.array([True, True]))
    assert [num_to_learn_from(images) for images in ([one, crowds], [crowds], [image()], [])] == [2, 0, 0, 0]


def test_cleaning_leaves_out_clips_and_counts():
    ((first, second), counts) = clean(
        [image([3, 3, 3, 8], [-1, 2, 30, 40], [1, 1, 2, 2], [50, 50, 60, 60]), image([4, 4, 4, 4])]
    )
    assert first.boxes_xyxy.tolist() == [[0, 2, 20, 10], [1, 1, 2, 2]]
    assert first.class_names == ("b", "c")
    assert (first.is_difficult.tolist(), first.areas.tolist()) == ([False, False], [1, 2])
    assert (second.boxes_xyxy.shape, second.class_names) == ((0, 4), ())
    assert counts == {"without_area": 2, "clipped": 1, "outside": 1}


def test_what_is_no_number_is_an_error():
    with pytest.raises(DataError, match=r"x\.jpg: a box of class 'b' has a coordinate that is no number"):
        clean([image([0, 0, 1, 1], [1, 1, float("nan"), 4])])


def test_truths_have_labels_from_one():
    (truth,) = truths([image([1, 2, 3, 4], [5, 5, 6, 6])], ("b", "a"))
    assert torch.equal(truth.boxes_xyxy, torch.tensor([[1.0, 2, 3, 4], [5, 5, 6, 6]]))
    assert truth.labels.tolist() == [2, 1]
    assert (truth.is_difficult.tolist(), truth.is_crowd.tolist()) == ([True, False], [False, False])
    assert truth.areas.tolist() == [0, 1]


def test_a_class_that_the_model_lacks_is_named():
    with pytest.raises(DataError, match=r"x\.jpg: class 'a' is none of cat, dog"):
        list(truths([image([1, 2, 3, 4])], ("cat", "dog")))


def test_classes_are_those_that_occur_sorted():
    assert class_names([image([1, 2, 3, 4], names="b"), image([1, 2, 3, 4], names="a"), image()]) == ("a", "b")
