from dataclasses import replace

import pytest
import torch

from model.average_precision import Curve
from model.example import Truth, plain_truth
from model.mistakes import Mistake, confusion_matrix, find_mistakes, label_errors
from model.postprocess import Detections

HERE = [0.0, 0.0, 10.0, 10.0]
THIRD_OF_HERE = [5.0, 0.0, 15.0, 10.0]  # IoU 1/3
THERE = [50.0, 50.0, 70.0, 60.0]
NOWHERE = [100.0, 100.0, 110.0, 110.0]


def truth(*objects: tuple[list[float], int]) -> Truth:
    boxes = torch.tensor([box for box, _ in objects]).reshape(-1, 4)
    return plain_truth(boxes, torch.tensor([label for _, label in objects], dtype=torch.int64))


def found(*detections: tuple[list[float], int, float]) -> Detections:
    boxes = torch.tensor([d[0] for d in detections]).reshape(-1, 4)
    labels = torch.tensor([d[1] for d in detections], dtype=torch.int64)
    return Detections(boxes, torch.tensor([d[2] for d in detections]), labels)


def mistakes(detections: Detections, objects: Truth, min_score: float = 0.25) -> list[Mistake]:
    return find_mistakes([detections], [objects], torch.full((3,), min_score))


def test_nothing_is_wrong() -> None:
    assert mistakes(found((HERE, 1, 0.5)), truth((HERE, 1))) == []
    assert mistakes(found(), truth()) == []


@pytest.mark.parametrize(
    ("box", "label", "kind", "thing"),
    [
        (NOWHERE, 1, "false_positive", None),
        (THIRD_OF_HERE, 1, "poorly_placed", 0),
        (HERE, 2, "wrong_class", 0),
        (THIRD_OF_HERE, 2, "false_positive", None),
    ],
)
def test_each_kind(box: list[float], label: int, kind: str, thing: int | None) -> None:
    """What stands for the object says why it was not found; else it is missed, too."""
    first, *rest = mistakes(found((box, label, 0.75)), truth((HERE, 1)))
    assert first == Mistake(kind, 0, 0.75, 0, thing)
    assert rest == ([] if thing == 0 else [Mistake("missed", 0, 0.0, None, 0)])


def test_beside_a_right_one_a_second_is_a_false_positive() -> None:
    detections = found((HERE, 1, 0.9), (HERE, 1, 0.75), (THIRD_OF_HERE, 1, 0.5))
    assert mistakes(detections, truth((HERE, 1))) == [
        Mistake("false_positive", 0, 0.75, 1, None),
        Mistake("false_positive", 0, 0.5, 2, None),
    ]


def test_weak_detections_neither_find_nor_err() -> None:
    assert mistakes(found((HERE, 1, 0.125), (NOWHERE, 2, 0.125)), truth((HERE, 1))) == [
        Mistake("missed", 0, 0.0, None, 0)
    ]


@pytest.mark.parametrize("field", ["is_difficult", "is_crowd"])
def test_what_does_not_count_is_no_mistake(field: str) -> None:
    objects = replace(truth((HERE, 1)), **{field: torch.tensor([True])})
    assert mistakes(found((HERE, 1, 0.75)), objects) == []
    assert mistakes(found(), objects) == []


def test_the_worst_come_first() -> None:
    """Confident ones of all images, then what was missed by its size."""
    all_found = [found((NOWHERE, 1, 0.5)), found((NOWHERE, 2, 0.75))]
    each = find_mistakes(all_found, [truth((HERE, 1)), truth((THERE, 1))], torch.zeros(3))
    assert [(m.kind, m.image) for m in each] == [
        ("false_positive", 1), ("false_positive", 0), ("missed", 1), ("missed", 0),
    ]  # fmt: skip


def test_the_best_score() -> None:
    """Right, wrong, right, wrong of two: F1 2/3, 1/2, 4/5, 2/3."""
    recall, precision = torch.tensor([0.5, 0.5, 1, 1]), torch.tensor([1, 0.5, 2 / 3, 0.5])
    assert Curve(recall, precision, torch.tensor([0.9, 0.8, 0.75, 0.1])).best_score == 0.75
    nothing = torch.zeros(0)
    assert Curve(nothing, nothing, nothing).best_score == 1.0
    assert Curve(torch.zeros(1), torch.zeros(1), torch.tensor([0.9])).best_score == 1.0


def test_sure_mistakes_may_be_mistakes_of_the_labels() -> None:
    detections = found((NOWHERE, 1, 0.9), (THERE, 2, 0.8), (HERE, 1, 0.79), (THIRD_OF_HERE, 1, 0.95))
    suspects = label_errors(mistakes(detections, truth((THERE, 1), (THIRD_OF_HERE, 1))))
    assert [(m.kind, m.detection, m.object) for m in suspects] == [("false_positive", 0, None), ("wrong_class", 1, 0)]


def test_the_confusion_matrix() -> None:
    """Found as it is, found as another class, found twice, missed, and nothing found as something; weak ones do not count."""
    detections = found((HERE, 1, 0.9), (HERE, 1, 0.8), (THERE, 1, 0.7), (NOWHERE, 2, 0.6), (NOWHERE, 1, 0.1))
    objects = truth((HERE, 1), (THERE, 2), ([200.0, 0.0, 210.0, 10.0], 2))
    counts = confusion_matrix([detections, found()], [objects, truth((HERE, 1))], torch.tensor([1.0, 0.25, 0.25]))
    assert counts.tolist() == [[0, 1, 1], [1, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize("field", ["is_difficult", "is_crowd"])
def test_what_does_not_count_is_taken_for_nothing(field: str) -> None:
    objects = replace(truth((HERE, 1), (THERE, 1)), **{field: torch.tensor([True, True])})
    if field == "is_crowd":  # a detection in it is small beside it
        around = [0.0, 0.0, 90.0, 90.0]
        inside = replace(truth((around, 1)), is_crowd=torch.tensor([True]))
        assert confusion_matrix([found((HERE, 1, 0.9))], [inside], torch.zeros(3)).sum() == 0
        beside = replace(truth((around, 1), (HERE, 2)), is_crowd=torch.tensor([True, False]))
        counts = confusion_matrix([found((HERE, 2, 0.9), (THERE, 1, 0.8))], [beside], torch.zeros(3))
        assert counts.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]  # who is found beside it is found
    assert confusion_matrix([found((HERE, 2, 0.9))], [objects], torch.zeros(3)).sum() == 0
