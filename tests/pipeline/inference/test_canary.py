import pytest

from pipeline.inference.canary import Found, count_differences, to_detections

LABELS = {"cat": 1, "dog": 2}


def found(*boxes: tuple[str, float, int, int, int, int]) -> Found:
    return [dict(zip(("label", "score", "xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in boxes]


CAT, DOG = ("cat", 0.9, 0, 0, 10, 10), ("dog", 0.8, 20, 20, 30, 30)


@pytest.mark.parametrize(
    ("against", "new", "number"),
    [
        ([], [], 0),
        ([CAT, DOG], [DOG, CAT], 0),
        ([CAT], [("cat", 0.6, 0, 0, 10, 9)], 0),  # IoU 0.9
        ([CAT], [("cat", 0.9, 3, 0, 13, 10)], 0),  # 7 / 13
        ([CAT], [("cat", 0.9, 4, 0, 14, 10)], 1),  # 6 / 14: one that moved
        ([CAT], [("dog", 0.9, 0, 0, 10, 10)], 1),  # one that changed its class
        ([CAT], [], 1),
        ([], [CAT, DOG], 2),
        ([CAT], [CAT, ("cat", 0.7, 0, 0, 10, 10)], 1),  # found twice
        ([CAT], [("cat", 0.9, 50, 50, 60, 60)], 2),  # nothing to do with each other
    ],
)
def test_boxes_that_only_one_has_are_counted(against, new, number):
    pair = [[to_detections(found(*boxes), LABELS)] for boxes in (against, new)]
    assert count_differences(*pair, len(LABELS)) == [number]


def test_each_image_is_counted_for_itself():
    images = [to_detections(found(*boxes), LABELS) for boxes in ([CAT], [], [CAT, DOG])]
    assert count_differences(images, list(reversed(images)), len(LABELS)) == [1, 0, 1]


def test_detections_are_read_best_first_and_by_name():
    read = to_detections(found(DOG, CAT), LABELS)
    assert read.boxes_xyxy.tolist() == [[0, 0, 10, 10], [20, 20, 30, 30]]
    assert read.labels.tolist() == [1, 2]
    assert read.scores.tolist() == pytest.approx([0.9, 0.8])
    assert to_detections([], LABELS).boxes_xyxy.shape == (0, 4)
