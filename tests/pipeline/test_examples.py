import pytest
import torch

from pipeline.dataset import read_labelled
from pipeline.examples import LabelledExamples
from pipeline.labelled import DataError


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


@pytest.mark.s3
def test_images_on_s3(labelled, upload, tmp_path):
    url = upload(labelled.voc(tmp_path, a=labelled.thing("cat", 1, 1, 3, 3)))
    (example,) = LabelledExamples(read_labelled([url], "train"), ("cat",))
    assert example.image.shape == (3, 10, 20)
