import pytest
from PIL import Image

from model.config import Architecture
from pipeline.labelled.check import check_data

SSD300 = Architecture()


def found(report) -> dict[tuple[str, str], int]:
    return {(finding.split, finding.kind): finding.count for finding in report.findings}


@pytest.fixture
def thing(labelled):
    """A box of 6×6 pixels of 20×10: one that SSD300 has a default box for."""
    return labelled.thing("cat", 3, 3, 8, 8)


def write(path, seed: int) -> None:
    Image.new("RGB", (20, 10), (seed, 0, 0)).save(path)


@pytest.fixture
def sound(labelled, thing, tmp_path):
    """Two splits of one image each, with nothing wrong."""
    root = labelled.voc(tmp_path, a=thing)
    labelled.voc(root, "val", b=thing)
    write(root / "JPEGImages/b.jpg", 9)
    return root


def test_nothing_wrong(sound):
    report = check_data([str(sound)], ["train", "val"], None, SSD300)
    assert (report.is_sound, report.findings) == (True, [])
    split = report.splits["train"]
    assert (split.num_images, split.num_objects, split.class_counts) == (1, 1, {"cat": 1})
    assert split.sizes["shorter_side_px"]["median"] == pytest.approx(6 / 20 * 300)
    assert split.overlaps.shape == (1,)


def test_every_finding_at_once(labelled, thing, sound):
    labelled.voc(
        sound, broken="", gone=thing, cut=thing, wrong=thing, flaws=thing * 2 + labelled.thing("cat", 1, 1, "x", 4)
        + labelled.thing("cat", 3, 3, 3, 9) + labelled.thing("cat", 30, 1, 40, 9) + labelled.thing("cat", 15, 4, 30, 9),
        thin=labelled.thing("cat", 1, 4, 20, 4.5), empty="",
    )  # fmt: skip
    for number, name in enumerate(("gone", "cut", "wrong", "flaws", "thin", "empty")):
        write(sound / f"JPEGImages/{name}.jpg", 40 * number + 1)
    (sound / "Annotations/broken.xml").write_text("no XML")
    (sound / "JPEGImages/gone.jpg").unlink()
    (sound / "JPEGImages/cut.jpg").write_bytes((sound / "JPEGImages/cut.jpg").read_bytes()[:-20])
    Image.new("RGB", (30, 10)).save(sound / "JPEGImages/wrong.jpg")
    labelled.voc(sound, "val", bird=labelled.thing("bird", 3, 3, 8, 8), leaked=thing)
    write(sound / "JPEGImages/bird.jpg", 250)
    (sound / "JPEGImages/leaked.jpg").write_bytes((sound / "JPEGImages/flaws.jpg").read_bytes())
    report = check_data([str(sound)], ["train", "val"], None, SSD300)
    assert found(report) == {
        ("train", "broken_annotation"): 1, ("train", "missing_image"): 1, ("train", "unreadable_image"): 1,
        ("train", "size_differs"): 1, ("train", "not_a_number"): 1, ("train", "without_area"): 1, ("train", "outside"): 1,
        ("train", "clipped"): 1, ("train", "duplicate_box"): 1, ("train", "hard_to_match"): 1, ("train", "empty_image"): 1,
        ("val", "unknown_class"): 1, ("val", "leaked_image"): 1,
    }  # fmt: skip
    levels = [finding.level for finding in report.findings]
    assert (report.is_sound, levels) == (False, sorted(levels)), "errors come first"


def test_known_classes_may_be_given(sound):
    report = check_data([str(sound)], ["train"], ["dog"], SSD300)
    assert found(report) == {("train", "unknown_class"): 1}


def test_a_split_of_crowds_can_not_be_learned_from(labelled, tmp_path):
    root = labelled.coco(tmp_path, {"image_id": 1, "category_id": 3, "bbox": [3, 3, 6, 6], "iscrowd": 1})
    report = check_data([str(root)], ["train"], None, SSD300)
    assert found(report) == {("train", "no_objects"): 1}
    assert report.findings[0].marks[0].why == "1 images, 1 objects as annotated, 1 of them crowds"


def test_shares_are_told(labelled, tmp_path):
    root = labelled.coco(tmp_path, {"image_id": 1, "category_id": 3, "bbox": [0.3, 0.3, 0.4, 0.4]})
    report = check_data([str(root)], ["train"], None, SSD300)
    assert found(report) == {("train", "shares"): 1, ("train", "no_objects"): 1}


def test_a_split_without_objects_can_not_be_learned_from(labelled, tmp_path):
    report = check_data([str(labelled.coco(tmp_path))], ["train"], None, SSD300)
    assert found(report) == {("train", "no_objects"): 1, ("train", "empty_image"): 1}
    (tmp_path / "annotations/instances_train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    report = check_data([str(tmp_path)], ["train"], None, SSD300)
    assert found(report) == {("train", "no_objects"): 1}


def test_crowds_are_not_compared_with_default_boxes(labelled, tmp_path):
    crowd = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 1], "iscrowd": 1}
    cat = {"image_id": 1, "category_id": 3, "bbox": [2, 2, 6, 6]}
    report = check_data([str(labelled.coco(tmp_path, crowd, cat))], ["train"], None, SSD300)
    assert (report.splits["train"].sizes["num_objects"], found(report)) == (1, {})


def test_without_an_annotated_size_the_real_one_tells(labelled, thing, tmp_path):
    report = check_data([str(labelled.voc(tmp_path, size_px=(0, 0), a=thing))], ["train"], None, SSD300)
    assert report.splits["train"].sizes["shorter_side_px"]["median"] == pytest.approx(90)
