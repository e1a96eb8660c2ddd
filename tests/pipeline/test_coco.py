import json

import numpy as np
import pytest

from pipeline.coco import has_split, read_coco
from pipeline.labelled import DataError

CAT = {"image_id": 1, "category_id": 3, "bbox": [2, 3, 5.5, 4], "area": 12.5, "iscrowd": 0}
CROWD = {
    "image_id": 1,
    "category_id": 7,
    "bbox": [0, 0, 20, 10],
    "iscrowd": 1,
    "segmentation": {"counts": [1], "size": [1, 2]},
}


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
        ('{"images": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [NaN]}], "categories": []}', "not COCO's"),
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


def test_splits(labelled, tmp_path):
    root = str(labelled.coco(tmp_path))
    assert (has_split(root, "train"), has_split(root, "val")) == (True, False)
