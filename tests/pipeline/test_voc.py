import pytest
import torch
from PIL import Image

from pipeline.voc import DataError, VocExamples, class_names, read_voc

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def thing(name: str, *corners: object, difficult: str = "") -> str:
    return f"<object><name>{name}</name>{difficult}{BOX.format(*corners)}</object>"


@pytest.fixture
def voc(tmp_path):
    """Make a data set with the split `train`: image names and the XML inside their annotations."""

    def voc(**annotations: str):
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (tmp_path / folder).mkdir(parents=True)
        for name, content in annotations.items():
            (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{content}</annotation>")
            Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "ImageSets/Main/train.txt").write_text("\n".join(annotations) + "\n\n")
        return tmp_path

    return voc


def test_boxes_become_zero_based(voc):
    root = voc(
        b=thing("cat", 1, 1, 20, 10) + thing("dog", 3, 4, 7.5, 9, difficult="<difficult>1</difficult>"),
        a="",
    )
    both, none = read_voc(root, "train")
    assert both.image_path == root / "JPEGImages" / "b.jpg"
    assert both.boxes_xyxy.tolist() == [[0, 0, 20, 10], [2, 3, 7.5, 9]]
    assert both.class_names == ("cat", "dog")
    assert both.is_difficult.tolist() == [False, True]
    assert (none.boxes_xyxy.shape, none.class_names, none.is_difficult.shape) == ((0, 4), (), (0,))


def test_boxes_without_area_are_left_out(voc):
    root = voc(
        a=thing("cat", 5, 5, 5, 9) + thing("dog", 1, 1, 3, 3) + thing("cat", 7, 2, 6, 9) + thing("cat", 1, 4, 9, 4)
    )
    (found,) = read_voc(root, "train")
    assert (found.boxes_xyxy.tolist(), found.class_names) == ([[0, 0, 3, 3]], ("dog",))
    assert found.is_difficult.shape == (1,)


def test_a_zero_based_box_stays_in_the_image(voc):
    (found,) = read_voc(voc(a=thing("cat", 0, 0, 5, 5)), "train")
    assert found.boxes_xyxy.tolist() == [[0, 0, 5, 5]]


def test_the_annotation_names_its_image(voc):
    (found,) = read_voc(voc(a="<filename>other.png</filename>"), "train")
    assert found.image_path.name == "other.png"


def test_the_first_word_of_a_line_is_the_name(voc):
    root = voc(a="", b="")
    (root / "ImageSets/Main/cat_train.txt").write_text("b  1\n")
    assert [found.image_path.name for found in read_voc(root, "cat_train")] == ["b.jpg"]


def test_an_unknown_split_is_named(voc):
    with pytest.raises(DataError, match="the split 'val'"):
        read_voc(voc(a=""), "val")


BOMB = """<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>"""


@pytest.mark.parametrize(
    "content",
    [
        "<annotation><object>",
        "no XML",
        "",
        f"{BOMB}<annotation><filename>&b;</filename></annotation>",
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>',
        "<annotation><object><name>cat</name></object></annotation>",
        f"<annotation>{thing('cat', 1, 2, 'three', 4)}</annotation>",
    ],
)
def test_what_is_no_annotation_is_named(content, voc):
    root = voc(a="")
    (root / "Annotations/a.xml").write_text(content)
    with pytest.raises(DataError, match=r"a\.xml: not a VOC annotation"):
        read_voc(root, "train")
    (root / "Annotations/a.xml").unlink()
    with pytest.raises(DataError, match=r"a\.xml"):
        read_voc(root, "train")


def test_examples_have_pixels_and_labels(voc):
    annotations = read_voc(voc(a=thing("dog", 1, 1, 3, 3) + thing("cat", 2, 2, 4, 4)), "train")
    assert class_names(annotations) == ("cat", "dog")
    (example,) = VocExamples(annotations, ("cat", "dog"))
    assert (example.image.shape, example.image.dtype) == ((3, 10, 20), torch.uint8)
    assert example.truth.labels.tolist() == [2, 1]
    assert torch.equal(example.truth.boxes_xyxy, torch.tensor([[0.0, 0, 3, 3], [1, 1, 4, 4]]))


def test_a_class_that_the_model_lacks_is_named(voc):
    annotations = read_voc(voc(a=thing("bird", 1, 1, 3, 3)), "train")
    with pytest.raises(DataError, match=r"a\.jpg: class 'bird' is none of cat, dog"):
        VocExamples(annotations, ("cat", "dog"))


def test_an_image_that_is_missing_or_broken_is_named(voc):
    root = voc(a="")
    examples = VocExamples(read_voc(root, "train"), ())
    (root / "JPEGImages/a.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(DataError, match=r"a\.jpg: "):
        examples[0]
    (root / "JPEGImages/a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.jpg"):
        examples[0]
