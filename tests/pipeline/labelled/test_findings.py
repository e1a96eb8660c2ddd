import numpy as np
import pytest

from pipeline.labelled import findings
from pipeline.labelled.findings import FINDING_TEXTS, Finding, Mark
from pipeline.labelled.image_facts import ImageFacts
from pipeline.labelled.record import LabelledImage

NAN = float("nan")


def image(uri: str, *objects: tuple[str, list[float]], size_px: tuple[int, int] | None = (20, 10)) -> LabelledImage:
    names, boxes = tuple(name for name, _ in objects), [box for _, box in objects]
    none = np.zeros(len(objects), dtype=np.bool_)
    return LabelledImage(
        uri, size_px, np.array(boxes, dtype=np.float64).reshape(-1, 4), names, none, none, np.zeros(len(objects))
    )


def told(marks) -> list[tuple[str, int, str]]:
    return [(mark.uri, mark.count, mark.why) for mark in marks]


CAT, DOG = ("cat", [1, 1, 5, 5]), ("dog", [1, 1, 5, 5])


def test_flawed_boxes_are_marked():
    images = [image("a", CAT, ("dog", [1, 1, 1, 5]), ("cat", [2, 2, 2, 2])), image("b", CAT)]
    (mark,) = findings.flawed_boxes(images, "without_area")
    assert (mark.uri, mark.count, mark.texts) == ("a", 2, ("dog", "cat"))
    assert mark.boxes_xyxy.tolist() == [[1, 1, 1, 5], [2, 2, 2, 2]]


def test_duplicate_boxes_are_of_one_class():
    assert told(findings.duplicate_boxes([image("a", CAT, DOG, CAT, CAT), image("b", CAT)])) == [("a", 2, "")]


def test_unknown_classes():
    (mark,) = findings.unknown_classes([image("a", CAT, DOG), image("b", CAT)], ("cat", "bird"))
    assert (mark.uri, mark.texts, mark.why) == ("a", ("dog",), "'dog'")


@pytest.mark.parametrize("name", ["Cat", "cats", " cat", "ca-t", "ＣＡＴ"])
def test_an_unknown_class_is_named_with_the_nearest(name):
    (mark,) = findings.unknown_classes([image("a", (name, [1, 1, 5, 5]))], ("bird", "cat"))
    assert mark.why == f"{name!r} (perhaps 'cat'?)"


def test_classes_that_are_nearly_the_same():
    images = [
        image("a", CAT, ("Cats", [1, 1, 2, 2]), ("traffic light", [1, 1, 2, 2])),
        image("b", CAT, ("bus", [1, 1, 2, 2])),
    ]
    found = told(findings.similar_classes(images, ("traffic_light", "bird")))
    assert found == [("", 2, "'Cats' (1), 'cat' (2)"), ("", 2, "'traffic light' (1), 'traffic_light' (0)")]


def test_empty_images():
    assert told(findings.empty_images([image("a", CAT), image("b")])) == [("b", 1, "")]


def test_unusable_images():
    facts = {"a": ImageFacts((20, 10)), "b": ImageFacts(error="gone", is_missing=True), "c": ImageFacts(error="cut")}
    images = [image(uri) for uri in facts]
    assert told(findings.unusable_images(images, facts, is_missing=True)) == [("b", 1, "gone")]
    assert told(findings.unusable_images(images, facts, is_missing=False)) == [("c", 1, "cut")]


@pytest.mark.parametrize(
    ("annotated", "facts", "differs", "turned"),
    [
        ((20, 10), ImageFacts((20, 10)), None, None),
        ((20, 10), ImageFacts((20, 11)), "20×11, annotated as 20×10", None),
        ((20, 10), ImageFacts((10, 20), 6), "10×20, annotated as 20×10 (annotated before EXIF turns it)", None),
        ((10, 20), ImageFacts((10, 20), 6), None, "orientation 6"),
        ((20, 10), ImageFacts((20, 10), 3), None, "orientation 3"),
        (None, ImageFacts((20, 10), 3), None, "orientation 3"),
        (None, ImageFacts((20, 10)), None, None),
        ((20, 10), ImageFacts(error="gone", is_missing=True), None, None),
    ],
)
def test_sizes_and_turns(annotated, facts, differs, turned):
    images = [image("a", size_px=annotated)]
    assert [mark.why for mark in findings.other_sizes(images, {"a": facts})] == [differs] * (differs is not None)
    assert [mark.why for mark in findings.turned_images(images, {"a": facts})] == [turned] * (turned is not None)


def test_the_same_image_twice_in_a_split_and_in_another():
    facts = {
        "a": ImageFacts(sha256="1"), "b": ImageFacts(sha256="1"), "c": ImageFacts(sha256="2"),
        "gone": ImageFacts(error="gone"), "lost": ImageFacts(error="gone"),
    }  # fmt: skip
    train = [image("a"), image("b"), image("gone"), image("a")]
    assert told(findings.duplicate_images(train, facts)) == [("b", 1, "as a"), ("a", 1, "as a")]
    val = [image("b"), image("c"), image("lost")]
    assert told(findings.duplicate_images(val, facts)) == []
    assert told(findings.leaked_images(val, {"train": train}, facts)) == [("b", 1, "in train: a")]
    assert told(findings.leaked_images(train, {}, facts)) == []


def test_objects_that_are_hard_to_match():
    images = [image("a", CAT, DOG), image("b", CAT)]
    (mark,) = findings.hard_to_match(images, [np.array([0.6, 0.4]), np.array([0.5])])
    assert (mark.uri, mark.texts) == ("a", ("dog",))


def test_a_finding_counts_boxes_or_images():
    marks = (Mark("a", np.zeros((2, 4)), ("x", "y"), 2), Mark("b", np.zeros((1, 4)), ("x",), 1))
    assert Finding("clipped", "train", marks).count == 3
    assert {level for level, _ in FINDING_TEXTS.values()} == {"error", "note"}
    assert Finding("clipped", "train", marks).level == "note"
