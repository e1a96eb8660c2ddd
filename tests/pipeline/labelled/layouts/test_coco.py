import json

import numpy as np
import pytest

from pipeline.labelled.layouts.coco import splits
from pipeline.labelled.record import DataError
from pipeline.storage import store

CAT = {"image_id": 1, "category_id": 3, "bbox": [2, 3, 5.5, 4], "area": 12.5, "iscrowd": 0}
CROWD = {
    "image_id": 1,
    "category_id": 7,
    "bbox": [0, 0, 20, 10],
    "iscrowd": 1,
    "segmentation": {"counts": [1], "size": [1, 2]},
}


def read_coco(root: str, split: str, on_broken):
    """A split of a folder."""
    return splits(root, store.names(root))[split].read(on_broken)


def test_boxes_become_corners(labelled, tmp_path):
    root = labelled.coco(tmp_path, CAT, CROWD, names=("a.jpg", "deep/b.jpg"))
    both, none = read_coco(str(root), "train", pytest.fail)
    assert both.uri == str(root / "train/a.jpg")
    assert both.size_px == (20, 10)
    assert both.boxes_xyxy.tolist() == [[2, 3, 7.5, 7], [0, 0, 20, 10]]
    assert both.class_names == ("cat", "dog")
    assert both.is_crowd.tolist() == [False, True]
    assert both.is_difficult.tolist() == [False, False]
    assert both.areas.tolist() == [12.5, 200], "the outline's, or the box's"
    assert none.uri == str(root / "train/deep/b.jpg")
    assert (none.boxes_xyxy.shape, none.class_names, none.areas.shape) == ((0, 4), (), (0,))


@pytest.mark.parametrize("place", ["train", "images/train", "images", "."])
def test_images_are_found_where_they_are(place, labelled, tmp_path):
    """The first is missing, which does not mislead."""
    root = labelled.coco(tmp_path, names=("a.jpg", "b.jpg"), place=place)
    (root / place / "a.jpg").unlink()
    _, found = read_coco(str(root), "train", pytest.fail)
    assert (tmp_path / "train" / found.uri).samefile(root / place / "b.jpg")


def test_images_that_are_nowhere_are_looked_for_in_the_split(labelled, tmp_path):
    root = labelled.coco(tmp_path)
    (root / "train/a.jpg").unlink()
    assert read_coco(str(root), "train", pytest.fail)[0].uri == str(root / "train/a.jpg")


@pytest.mark.parametrize("bbox", [None, "1 2 3 4", [1, 2, 3], [1, 2, "3", 4], [1, 2, None, 4], [1, 2, True, 4]])
def test_what_is_no_number_is_not_a_number(bbox, labelled, tmp_path):
    (found,) = read_coco(str(labelled.coco(tmp_path, CAT | {"bbox": bbox})), "train", pytest.fail)
    assert np.isnan(found.boxes_xyxy).any()
    assert found.class_names == ("cat",)


def test_objects_of_nothing_are_told(labelled, tmp_path):
    broken: list[DataError] = []
    root = labelled.coco(tmp_path, CAT | {"image_id": 5}, CAT | {"category_id": 4}, CAT)
    (found,) = read_coco(str(root), "train", broken.append)
    assert found.class_names == ("cat",)
    assert [str(error).partition(": ")[2] for error in broken] == [
        "no image 5 or no category 3",
        "no image 1 or no category 4",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not COCO's instances"),
        ("[]", "Expected `object`, got `array`"),
        ('{"images": [], "annotations": []}', "missing required field `categories`"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"missing required field `file_name` - at `\$\.images\[0\]`"),
        ('{"images": [{"id": 1, "file_name": "a", "width": NaN}], "annotations": [], "categories": [{"id": 3}]}', "`name`"),
        ('{"images": [], "annotations": [], "categories": [{"id": 3, "name": " "}]}', "category 3 has no name"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": "3", "name": "dog"}]}',
            "category 3 is both 'cat' and 'dog'",
        ),
        (
            json.dumps({"images": [{"id": 1, "file_name": n} for n in "ab"], "annotations": [], "categories": []}),
            "1 ids stand for several images each, such as 1",
        ),
    ],
)  # fmt: skip
def test_what_is_no_coco_file_is_named(content, message, labelled, tmp_path):
    root = labelled.coco(tmp_path)
    (root / "annotations/instances_train.json").write_text(content)
    with pytest.raises(DataError, match=rf"instances_train\.json: .*{message}"):
        read_coco(str(root), "train", pytest.fail)


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "1"}, {"category_id": "3"}, {"category_id": 3.0}, {"image_id": 1.0}, {"iscrowd": None}, {"iscrowd": False},
        {"iscrowd": "0"}, {"area": None}, {"area": "12.5"},
    ],
)  # fmt: skip
def test_types_as_tools_write_them(change, labelled, tmp_path):
    (found,) = read_coco(str(labelled.coco(tmp_path, CAT | change)), "train", pytest.fail)
    assert (found.class_names, found.boxes_xyxy.tolist(), found.is_crowd.tolist()) == (
        ("cat",),
        [[2, 3, 7.5, 7]],
        [False],
    )
    assert found.areas.tolist() == [22 if "area" in change else 12.5]


@pytest.mark.parametrize("is_crowd", [1, True, "1"])
def test_crowds_as_tools_write_them(is_crowd, labelled, tmp_path):
    (found,) = read_coco(str(labelled.coco(tmp_path, CAT | {"iscrowd": is_crowd})), "train", pytest.fail)
    assert found.is_crowd.tolist() == [True]


def rewritten(root, change) -> str:
    """The data set with its file's text changed."""
    file = root / "annotations/instances_train.json"
    file.write_bytes(change(file.read_text()))
    return str(root)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read(encoding, labelled, tmp_path):
    (found,) = read_coco(
        rewritten(labelled.coco(tmp_path, CAT), lambda text: text.encode(encoding)), "train", pytest.fail
    )
    assert found.class_names == ("cat",)


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_numbers_that_json_does_not_have(number, labelled, tmp_path):
    """Python writes them: the box is told of with its image, and not the byte of the file."""
    root = rewritten(labelled.coco(tmp_path, CAT), lambda text: text.replace("[2, 3", f"[2, {number}").encode())
    (found,) = read_coco(root, "train", pytest.fail)
    assert (found.class_names, np.isfinite(found.boxes_xyxy).all()) == (("cat",), False)


@pytest.mark.parametrize(
    "name",
    [
        "{}", "./{}", "train/{}", r"train\{}", r"C:\Users\me\{}", "/home/me/set/train/{}", "../train/{}", "file:///x/{}", "images/{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["train", "images/train", "images", "."])
def test_names_as_tools_write_them(name, place, labelled, tmp_path):
    root = labelled.coco(tmp_path, names=("a.jpg", "b.jpg"), place=place)
    file = root / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["file_name"] = name.format(image["file_name"])
    file.write_text(json.dumps(content))
    for found, expected in zip(read_coco(str(root), "train", pytest.fail), ("a.jpg", "b.jpg"), strict=True):
        assert (tmp_path / found.uri).samefile(root / place / expected)


def test_names_that_would_become_one_file_are_refused(labelled, tmp_path):
    root = labelled.coco(tmp_path, names=("a.jpg", "b.jpg"))
    rewritten(
        root, lambda text: text.replace('"a.jpg"', '"/x/one/a.jpg"').replace('"b.jpg"', '"/x/two/a.jpg"').encode()
    )
    with pytest.raises(DataError, match="several names of other folders are one file"):
        read_coco(str(root), "train", pytest.fail)


def test_a_category_may_stand_twice_with_one_name(labelled, tmp_path):
    twice = '"categories": [{"id": 3, "name": "cat"}, '
    root = rewritten(labelled.coco(tmp_path, CAT), lambda text: text.replace('"categories": [', twice).encode())
    assert read_coco(root, "train", pytest.fail)[0].class_names == ("cat",)


def test_splits(labelled, tmp_path):
    root = str(labelled.coco(tmp_path))
    assert list(splits(root, store.names(root))) == ["train"]
