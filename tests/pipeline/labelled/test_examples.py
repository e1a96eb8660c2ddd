import pytest
import torch

from pipeline.errors import SsdBatchError
from pipeline.labelled.dataset import read_labelled
from pipeline.labelled.examples import LabelledExamples, UnreadableError
from pipeline.labelled.record import DataError
from pipeline.storage import store


@pytest.fixture
def images(labelled, tmp_path):
    labelled.voc(tmp_path, a=labelled.thing("dog", 1, 1, 3, 3) + labelled.thing("cat", 2, 2, 4, 4))
    return read_labelled([str(tmp_path)], "train")


def test_examples_have_pixels_and_labels(images):
    (example,) = LabelledExamples(images, ("cat", "dog"))
    assert (example.image.shape, example.image.dtype) == ((3, 10, 20), torch.uint8)
    assert example.truth.labels.tolist() == [2, 1]
    assert torch.equal(example.truth.boxes_xyxy, torch.tensor([[0.0, 0, 3, 3], [1, 1, 4, 4]]))


def test_a_class_that_the_model_lacks_is_named_before_any_image_is_read(images):
    with pytest.raises(DataError, match=r"a\.jpg: class 'dog' is none of cat"):
        LabelledExamples(images, ("cat",))


def test_an_image_that_is_missing_or_broken_is_named(images, tmp_path):
    examples = LabelledExamples(images, ("cat", "dog"))
    (tmp_path / "JPEGImages/a.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(DataError, match=r"a\.jpg: "):
        examples[0]
    (tmp_path / "JPEGImages/a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.jpg"):
        examples[0]


@pytest.mark.parametrize(("size_px", "turned"), [((30, 10), ""), ((10, 20), "before EXIF turns it ")])
def test_a_picture_of_another_size_than_its_annotation_says_is_named(size_px, turned, labelled, tmp_path):
    root = labelled.voc(tmp_path, size_px=size_px, a=labelled.thing("cat", 2, 2, 4, 4))
    examples = LabelledExamples(read_labelled([str(root)], "train"), ("cat",))
    said = f"{size_px[0]}×{size_px[1]}"
    for look in (lambda: examples[0], examples.look_at_all):
        with pytest.raises(DataError, match=rf"a\.jpg: the picture is 20×10 pixels, annotated {turned}as {said}"):
            look()


def test_all_that_can_not_be_read_are_found(labelled, tmp_path):
    labelled.voc(tmp_path, **{name: labelled.thing("cat", 2, 2, 4, 4) for name in "abc"})
    examples = LabelledExamples(read_labelled([str(tmp_path)], "train"), ("cat",))
    assert examples.look_at_all() == [(20, 10)] * 3
    (tmp_path / "JPEGImages/a.jpg").write_bytes(b"no image")
    (tmp_path / "JPEGImages/c.jpg").unlink()
    first, second, third = examples.look_at_all()
    assert (second, type(first), type(third)) == ((20, 10), UnreadableError, UnreadableError)
    assert str(first).startswith(f"{tmp_path}/JPEGImages/a.jpg: ")


def test_what_can_not_be_read_now_may_be_read_later(images, monkeypatch):
    def fail(url: str) -> bytes:
        raise TimeoutError("no answer")

    monkeypatch.setattr(store, "read", fail)
    with pytest.raises(SsdBatchError, match=r"a\.jpg can't be read: no answer") as found:
        LabelledExamples(images, ("cat", "dog"))[0]
    assert not isinstance(found.value, DataError)


def test_large_jpegs_come_at_a_fraction_with_boxes_in_pixels_of_the_whole(images):
    """20×10 pixels, at a quarter."""
    (example,) = LabelledExamples(images, ("cat", "dog"), min_side_px=2)
    assert (example.image.shape, example.size_px) == ((3, 3, 5), (20, 10))
    assert torch.equal(example.truth.boxes_xyxy, torch.tensor([[0.0, 0, 3, 3], [1, 1, 4, 4]]))


@pytest.mark.s3
def test_images_on_s3(labelled, upload, tmp_path):
    url = upload(labelled.voc(tmp_path, a=labelled.thing("cat", 1, 1, 3, 3)))
    (example,) = LabelledExamples(read_labelled([url], "train"), ("cat",))
    assert example.image.shape == (3, 10, 20)
