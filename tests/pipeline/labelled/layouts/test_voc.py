import numpy as np
import pytest

from pipeline.labelled.layouts.voc import read_voc, splits
from pipeline.labelled.record import DataError
from pipeline.storage import store


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
    (found,) = read(a=labelled.thing("cat", 5, 5, 5, 9))
    assert found.areas.tolist() == [0]


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


def test_labels_beside_an_image_are_no_images(read, tmp_path):
    read(a="")
    for name in ("a.txt", "a.json", "a.xml"):
        (tmp_path / "JPEGImages" / name).touch()
    (found,) = read_voc(str(tmp_path), "train", pytest.fail)
    assert found.uri == str(tmp_path / "JPEGImages/a.jpg")


@pytest.mark.parametrize("file", ["a.jpg", "a.JPG", "a.png", "a.jpeg", "A.JPG"])
@pytest.mark.parametrize("filename", ["", "gone.jpg", r"C:\Users\me\a.jpg", "/home/me/A.jpg"])
def test_an_id_has_the_image_of_its_name(file, filename, read, tmp_path):
    read(a=f"<filename>{filename}</filename>", b="")
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages" / file)
    found, _ = read_voc(str(tmp_path), "train", pytest.fail)
    assert found.uri == str(tmp_path / "JPEGImages" / file)


def test_an_image_of_another_name_is_found_by_its_annotation(read, tmp_path):
    read(a="<filename>photos/other.png</filename>")
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/other.png")
    (found,) = read_voc(str(tmp_path), "train", pytest.fail)
    assert found.uri == str(tmp_path / "JPEGImages/other.png")


def test_an_image_that_is_nowhere_keeps_its_name(read, tmp_path):
    read(a="")
    (tmp_path / "JPEGImages/a.jpg").unlink()
    (found,) = read_voc(str(tmp_path), "train", pytest.fail)
    assert found.uri == str(tmp_path / "JPEGImages/a.jpg")


@pytest.mark.parametrize(("file", "is_right"), [("a.png", True), ("a.jpg", True), ("c.jpg", False), ("", False)])
def test_of_several_images_the_annotation_names_one(file, is_right, read, labelled, tmp_path):
    read(a="")
    (tmp_path / "JPEGImages/a.png").write_bytes((tmp_path / "JPEGImages/a.jpg").read_bytes())
    labelled.voc(tmp_path, a=f"<filename>{file}</filename>")
    broken: list[DataError] = []
    found = read_voc(str(tmp_path), "train", broken.append)
    assert [image.uri.rpartition("/")[2] for image in found] == ([file] if is_right else [])
    assert [("a.jpg, a.png" in str(error)) for error in broken] == ([] if is_right else [True])


@pytest.mark.parametrize("filename", ["b.jpg", r"D:\pictures\b.png", "b"])
def test_an_annotation_that_names_the_image_of_another_one_is_told(filename, labelled, tmp_path):
    """Whose boxes are whose? Swapped pairs and a name that all annotations share are such."""
    root = labelled.voc(tmp_path, a=f"<filename>{filename}</filename>", b="<filename>b.jpg</filename>")
    broken: list[DataError] = []
    (left,) = read_voc(str(root), "train", broken.append)
    assert left.uri.endswith("/b.jpg")
    (error,) = broken
    assert all(text in str(error) for text in ("Annotations/a.xml", "image of 'b'", "of 'a' is expected"))


@pytest.mark.parametrize("flag", [" 1", "  1", " 0", "  -1", "\t-1"])
def test_the_list_of_a_class_has_flags(flag, read, tmp_path):
    read(a="", b="")
    (tmp_path / "ImageSets/Main/cat_train.txt").write_text(f"b{flag}\n")
    found = read_voc(str(tmp_path), "cat_train", pytest.fail)
    assert [image.uri.rpartition("/")[2] for image in found] == ["b.jpg"]


def test_names_with_blanks(read):
    names = ["cat", "cat 1", "cat 3", "my  red cat"]
    assert [image.uri.rpartition("/")[2] for image in read(**dict.fromkeys(names, ""))] == [
        f"{name}.jpg" for name in names
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_listing_as_editors_write_it(encoding, newline, read, tmp_path):
    read(a="", b="")
    (tmp_path / "ImageSets/Main/train.txt").write_bytes(newline.join(["b", "a", ""]).encode(encoding))
    found = read_voc(str(tmp_path), "train", pytest.fail)
    assert [image.uri.rpartition("/")[2] for image in found] == ["b.jpg", "a.jpg"]


@pytest.mark.parametrize("encoding", ["gb2312", "gbk", "big5", "shift_jis", "latin-1", "utf-8", "utf-8-sig", "utf-16"])
def test_an_annotation_in_its_own_encoding(encoding, labelled, tmp_path):
    name = {"latin-1": "é", "gb2312": "红", "big5": "貓"}.get(encoding, "猫")
    root = labelled.voc(tmp_path, a="")
    declared = encoding.removesuffix("-sig")
    content = (
        f'<?xml version="1.0" encoding="{declared}"?>\n<annotation>{labelled.thing(name, 1, 1, 5, 5)}</annotation>'
    )
    (root / "Annotations/a.xml").write_bytes(content.encode(encoding))
    (found,) = read_voc(str(root), "train", pytest.fail)
    assert found.class_names == (name,)


def test_a_namespace_is_read(labelled, tmp_path):
    root = labelled.voc(tmp_path, a=labelled.thing("cat", 1, 1, 20, 10))
    file = root / "Annotations/a.xml"
    file.write_text(file.read_text().replace("<annotation>", '<annotation xmlns="http://example.org/voc">'))
    (found,) = read_voc(str(root), "train", pytest.fail)
    assert (found.class_names, found.boxes_xyxy.tolist(), found.size_px) == (("cat",), [[0, 0, 20, 10]], (20, 10))


@pytest.mark.parametrize(
    ("corners", "expected"),
    [((7, 2, 3, 9), [7, 1, 2, 9]), ((7, 9, 3, 2), [7, 9, 2, 1]), ((7, 9, 0, 0), [7, 9, 0, 0])],
)
def test_swapped_corners_are_zero_based_too(corners, expected, read, labelled):
    """They stay swapped, for a check to find them; the lower one is moved."""
    (found,) = read(a=labelled.thing("cat", *corners))
    assert found.boxes_xyxy.tolist() == [expected]
    assert found.areas.tolist() == [abs(expected[2] - expected[0]) * abs(expected[3] - expected[1])]


def test_a_folder_that_is_missing_is_named(read, tmp_path):
    read(a="")
    (tmp_path / "JPEGImages/a.jpg").unlink()
    (tmp_path / "JPEGImages").rmdir()
    with pytest.raises(DataError, match=r"JPEGImages: can't be read"):
        read_voc(str(tmp_path), "train", pytest.fail)


def test_splits(labelled, tmp_path):
    root = str(labelled.voc(tmp_path, a=""))
    assert list(splits(root, store.names(root))) == ["train"]
    assert splits(root, {"JPEGImages"}) == {}


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
        '<annotations><image name="a.jpg"><box label="red" xtl="1"/></image></annotations>',
        "<doc/>",
        '<?xml version="1.0" encoding="klingon"?><annotation/>',
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
