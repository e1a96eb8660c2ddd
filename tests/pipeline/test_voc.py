import numpy as np
import pytest

from pipeline.labelled import DataError
from pipeline.voc import has_split, read_voc


@pytest.fixture
def read(labelled, tmp_path):
    """Read a split of annotations with this content, which must be whole."""

    def read(split: str = "train", **annotations: str):
        broken: list[DataError] = []
        images = read_voc(str(labelled.voc(tmp_path, split, **annotations)), split, broken.append)
        assert not broken
        return images

    return read


def test_boxes_become_zero_based(read, labelled, tmp_path):
    both, none = read(
        b=labelled.thing("cat", 1, 1, 20, 10) + labelled.thing(" dog ", 3, 4, 7.5, 9, difficult=True), a=""
    )
    assert both.uri == str(tmp_path / "JPEGImages/b.jpg")
    assert both.size_px == (20, 10)
    assert both.boxes_xyxy.tolist() == [[0, 0, 20, 10], [2, 3, 7.5, 9]]
    assert both.areas.tolist() == [200, 33]
    assert both.class_names == ("cat", "dog")
    assert both.is_difficult.tolist() == [False, True]
    assert both.is_crowd.tolist() == [False, False]
    assert (none.boxes_xyxy.shape, none.class_names, none.is_difficult.shape) == ((0, 4), (), (0,))


def test_what_has_no_area_gets_none(read, labelled):
    """By VOC's count a box from 5 to 5 is a pixel wide; in data sets it is a slip."""
    (found,) = read(a=labelled.thing("cat", 5, 5, 5, 9) + labelled.thing("cat", 7, 2, 6, 9))
    low, high = found.boxes_xyxy[:, :2], found.boxes_xyxy[:, 2:]
    assert (high - low).min(axis=1).tolist() == [0, -1]


def test_a_zero_based_box_stays_in_the_image(read, labelled):
    (found,) = read(a=labelled.thing("cat", 0, 0, 5, 5))
    assert found.boxes_xyxy.tolist() == [[0, 0, 5, 5]]


@pytest.mark.parametrize("value", ["three", "", "NaN", "inf", "-1e999"])
def test_what_is_no_number_is_not_a_number(value, read, labelled):
    (found,) = read(a=labelled.thing("cat", 1, 2, value, 4))
    assert np.isnan(found.boxes_xyxy).tolist() == [[False, False, True, False]]


def test_a_box_may_be_missing(read):
    (found,) = read(a="<object><name>cat</name></object>")
    assert np.isnan(found.boxes_xyxy).all()


def test_parts_of_an_object_are_no_objects(read, labelled):
    head = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    (found,) = read(a=labelled.thing("person", 1, 1, 5, 5).replace("<bndbox>", f"{head}<bndbox>", 1))
    assert (found.class_names, found.boxes_xyxy.tolist()) == (("person",), [[0, 0, 5, 5]])


@pytest.mark.parametrize(("size_px", "expected"), [((640, 480), (640, 480)), ((0, 0), None), (("", 4), None)])
def test_the_annotated_size_may_be_missing(size_px, expected, labelled, tmp_path):
    (found,) = read_voc(str(labelled.voc(tmp_path, size_px=size_px, a="")), "train", pytest.fail)
    assert found.size_px == expected


def test_the_annotation_names_its_image(read, tmp_path):
    (found,) = read(a="<filename>other.png</filename>")
    assert found.uri == str(tmp_path / "JPEGImages/other.png")


def test_the_first_word_of_a_line_is_the_name(read, tmp_path):
    read(a="", b="")
    (tmp_path / "ImageSets/Main/cat_train.txt").write_text("b  1\n")
    found = read_voc(str(tmp_path), "cat_train", pytest.fail)
    assert [image.uri.rpartition("/")[2] for image in found] == ["b.jpg"]


def test_splits(labelled, tmp_path):
    root = str(labelled.voc(tmp_path, a=""))
    assert (has_split(root, "train"), has_split(root, "val")) == (True, False)


BOMB = """<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>"""


@pytest.mark.parametrize(
    "content",
    [
        "<annotation><object>",
        "no XML",
        "",
        f"{BOMB}<annotation><filename>&b;</filename></annotation>",
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>',
        "<annotation><object><bndbox/></object></annotation>",
        None,
    ],
)
def test_what_is_no_annotation_is_told(content, labelled, tmp_path):
    root = labelled.voc(tmp_path, a="", b="")
    (root / "Annotations/a.xml").unlink()
    if content is not None:
        (root / "Annotations/a.xml").write_text(content)
    broken: list[DataError] = []
    (left,) = read_voc(str(root), "train", broken.append)
    assert left.uri.endswith("b.jpg")
    (error,) = broken
    assert f"{root}/Annotations/a.xml: not a VOC annotation" in str(error)
