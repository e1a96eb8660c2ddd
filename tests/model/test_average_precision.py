import math
from dataclasses import replace

import pytest
import torch

from model.average_precision import average_precisions
from model.example import Truth, plain_truth
from model.postprocess import Detections

HERE = [0.0, 0.0, 10.0, 10.0]
THERE = [50.0, 50.0, 70.0, 60.0]
NOWHERE = [100.0, 100.0, 110.0, 110.0]
HALF_OF_HERE = [0.0, 0.0, 10.0, 5.0]  # IoU ½


def truth(*objects: tuple[list[float], int] | tuple[list[float], int, str]) -> Truth:
    """Objects as (box, label) or (box, label, "difficult" or "crowd")."""
    plain = plain_truth(
        torch.tensor([o[0] for o in objects]).reshape(-1, 4), torch.tensor([o[1] for o in objects], dtype=torch.int64)
    )
    kinds = [o[2] if len(o) == 3 else "" for o in objects]
    is_difficult, is_crowd = (
        torch.tensor([kind == one for kind in kinds], dtype=torch.bool) for one in ("difficult", "crowd")
    )
    return replace(plain, is_difficult=is_difficult, is_crowd=is_crowd)


def found(*detections: tuple[list[float], int, float]) -> Detections:
    """Detections as (box, label, score)."""
    boxes = torch.tensor([d[0] for d in detections]).reshape(-1, 4)
    labels = torch.tensor([d[1] for d in detections], dtype=torch.int64)
    return Detections(boxes, torch.tensor([d[2] for d in detections]), labels)


def test_both_rules_by_hand():
    """Right, wrong, right, of 3 objects: recall ⅓ ⅓ ⅔ at precision 1 ½ ⅔.

    All points: ⅓·1 + ⅓·⅔. Eleven points: 1 at 0 to 0.3, ⅔ at 0.4 to 0.6, 0 at 0.7 to 1.
    """
    truths = [truth((HERE, 1), (THERE, 1)), truth((HERE, 1))]
    (result,) = average_precisions(
        [found((HERE, 1, 0.9), (NOWHERE, 1, 0.8)), found((HERE, 1, 0.7))], truths, num_labels=1
    )
    assert result.num_objects == 3
    assert result.all_points == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert result.eleven_points == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_precision_is_the_best_at_any_higher_recall():
    """Wrong, right, right: precision 0 ½ ⅔ is read as ⅔ ⅔ ⅔."""
    detections = found((NOWHERE, 1, 0.9), (HERE, 1, 0.8), (THERE, 1, 0.7))
    (result,) = average_precisions([detections], [truth((HERE, 1), (THERE, 1))], num_labels=1)
    assert result.all_points == pytest.approx(2 / 3)
    assert result.eleven_points == pytest.approx(2 / 3)


def test_all_found():
    (result,) = average_precisions([found((HERE, 1, 0.3))], [truth((HERE, 1))], num_labels=1)
    assert (result.all_points, result.eleven_points) == (1.0, 1.0)


def test_recall_of_a_tenth_reaches_its_point():
    """One of ten found: 1 at recall 0 and 0.1 (0.1 is reached, whatever its binary digits)."""
    boxes = [[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(10)]
    for count in range(1, 11):
        detections = found(*[(box, 1, 0.5) for box in boxes[:count]])
        (result,) = average_precisions([detections], [truth(*[(box, 1) for box in boxes])], num_labels=1)
        assert result.eleven_points == pytest.approx((count + 1) / 11)
        assert result.all_points == pytest.approx(count / 10)


def test_a_second_detection_of_an_object_is_wrong():
    """Right, wrong, right, of 2: recall ½ ½ 1 at precision 1 ½ ⅔."""
    detections = found((HERE, 1, 0.9), (HERE, 1, 0.8), (THERE, 1, 0.7))
    (result,) = average_precisions([detections], [truth((HERE, 1), (THERE, 1))], num_labels=1)
    assert result.all_points == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_difficult_objects_count_for_nothing():
    """The difficult one is neither missed nor wrong, however often it is found."""
    truths = [truth((HERE, 1), (THERE, 1, "difficult"))]
    for detections in (
        found((HERE, 1, 0.5)),
        found((THERE, 1, 0.9), (THERE, 1, 0.8), (HERE, 1, 0.5)),
    ):
        (result,) = average_precisions([detections], truths, num_labels=1)
        assert result.num_objects == 1
        assert result.all_points == 1.0


def test_a_detection_in_a_crowd_counts_for_nothing():
    """However often; but not one that half of lies outside, nor one that is right about an object in the crowd."""
    truths = [truth((HERE, 1), ([0.0, 0.0, 60.0, 60.0], 1, "crowd"))]
    inside, half_inside = [20.0, 20.0, 30.0, 30.0], [50.0, 0.0, 70.0, 10.0]
    (result,) = average_precisions(
        [found((inside, 1, 0.9), (inside, 1, 0.8), (HERE, 1, 0.7), (HERE, 1, 0.6), (half_inside, 1, 0.5))], truths, 1
    )
    assert (result.num_objects, result.all_points) == (1, 1.0)
    assert result.curve.scores.tolist() == pytest.approx([0.7, 0.5])
    assert result.curve.precision.tolist() == [1.0, 0.5]


def test_the_curve_has_an_entry_a_detection():
    """Right, wrong, right, of 3 objects, over two images."""
    truths = [truth((HERE, 1), (THERE, 1)), truth((HERE, 1))]
    (result,) = average_precisions([found((HERE, 1, 0.75), (NOWHERE, 1, 0.5)), found((HERE, 1, 0.25))], truths, 1)
    curve = result.curve
    assert curve.scores.tolist() == [0.75, 0.5, 0.25]
    assert curve.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])


def test_overlap_must_be_above_the_threshold():
    for match_iou, expected in ((0.5, 0.0), (0.49, 1.0)):
        (result,) = average_precisions([found((HALF_OF_HERE, 1, 0.9))], [truth((HERE, 1))], 1, match_iou)
        assert result.all_points == expected


def test_labels_are_apart():
    first, second = average_precisions(
        [found((HERE, 1, 0.9), (THERE, 1, 0.8))], [truth((HERE, 1), (THERE, 2))], num_labels=2
    )
    assert first.all_points == 1.0
    assert second.all_points == 0.0


def test_images_are_apart():
    (result,) = average_precisions([found(), found((HERE, 1, 0.9))], [truth((HERE, 1)), truth()], num_labels=1)
    assert result.all_points == 0.0


def test_scores_are_ordered_over_all_images():
    """Wrong at 0.9 in the second image comes before right at 0.8 in the first."""
    (result,) = average_precisions(
        [found((HERE, 1, 0.8)), found((HERE, 1, 0.9))], [truth((HERE, 1)), truth()], num_labels=1
    )
    assert result.all_points == pytest.approx(1 / 2)


def test_no_objects_is_nan():
    for truths in ([truth()], [truth((HERE, 1, "difficult"))]):
        (result,) = average_precisions([found((HERE, 1, 0.9))], truths, num_labels=1)
        assert math.isnan(result.all_points)
        assert math.isnan(result.eleven_points)
        assert result.num_objects == 0


def test_nothing_found_is_zero():
    (result,) = average_precisions([found()], [truth((HERE, 1))], num_labels=1)
    assert (result.all_points, result.eleven_points, result.num_objects) == (0.0, 0.0, 1)


def test_no_images_at_all_is_nan():
    (result,) = average_precisions([], [], num_labels=1)
    assert math.isnan(result.all_points)
