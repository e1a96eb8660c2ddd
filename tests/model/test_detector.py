import pytest
import torch
from torch import Tensor

from jobs.demo import PACKAGE
from jobs.demo.examples import DrawnExamples
from model.config import Architecture, Thresholds
from model.detector import Detector, OutputError
from model.package import ModelPackage
from model.package_files import PackageFiles, PackageRecord
from model.postprocess import Detections
from model.preprocess import resize
from model.ssd import SSD

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    """Its scores lie about ⅓; few detections of each image are kept."""
    torch.manual_seed(0)
    record = PackageRecord(
        name="narrow",
        architecture=Architecture(width=0.1),
        class_names=("disc", "square"),
        thresholds=Thresholds(topk_candidates=50, detections_per_img=20),
    )
    return ModelPackage(record, SSD(record.architecture, 3).state_dict())


@pytest.fixture(scope="module")
def detector(package: ModelPackage) -> Detector:
    return Detector(package, CPU, "fp32")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (3, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def assert_same(a: Detections, b: Detections) -> None:
    assert torch.equal(a.labels, b.labels)
    torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.boxes_xyxy, b.boxes_xyxy, atol=1e-2, rtol=0)


def test_a_batch_is_its_images_one_by_one(detector, images):
    sizes_px = torch.tensor([[300.0, 300.0], [640.0, 480.0], [10.0, 2000.0]])
    together = detector(images, sizes_px)
    assert [len(found.scores) for found in together] == [20, 20, 20]
    for index, found in enumerate(together):
        (alone,) = detector(images[index : index + 1], sizes_px[index : index + 1])
        assert_same(found, alone)


def test_boxes_are_pixels_of_the_original(detector, images):
    (small,) = detector(images[:1], torch.tensor([[300.0, 300.0]]))
    (large,) = detector(images[:1], torch.tensor([[600.0, 150.0]]))
    torch.testing.assert_close(large.boxes_xyxy, small.boxes_xyxy * torch.tensor([2.0, 0.5, 2.0, 0.5]))
    assert torch.equal(large.scores, small.scores)
    assert large.boxes_xyxy.min() >= 0
    assert (large.boxes_xyxy <= torch.tensor([600.0, 150.0, 600.0, 150.0])).all()


def test_results_are_on_the_cpu_in_float32_best_first(detector, images):
    for found in detector(images[:1], torch.tensor([[300.0, 300.0]])):
        assert found.boxes_xyxy.device == found.scores.device == found.labels.device == CPU
        assert found.boxes_xyxy.dtype == found.scores.dtype == torch.float32
        assert (found.scores.diff() <= 0).all()
        assert set(found.labels.tolist()) <= {1, 2}


def test_nothing_found(package, images):
    record = package.record.model_copy(update={"thresholds": Thresholds(score_thresh=1)})
    (found,) = Detector(ModelPackage(record, package.weights), CPU)(images[:1], torch.tensor([[300.0, 300.0]]))
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def test_outputs_that_are_not_finite_are_no_empty_result(package, images):
    """Weights that are finite, and too large."""
    weights = {name: tensor * 1e30 for name, tensor in package.weights.items()}
    with pytest.raises(OutputError, match="infinite or NaN"):
        Detector(ModelPackage(package.record, weights), CPU)(images[:1], torch.tensor([[300.0, 300.0]]))


def test_an_empty_batch(detector):
    assert detector(torch.zeros(0, 3, 300, 300, dtype=torch.uint8), torch.zeros(0, 2)) == []


def test_bfloat16_finds_much_the_same(package, detector, images):
    sizes_px = torch.tensor([[300.0, 300.0]])
    (exact,), (rough,) = detector(images[:1], sizes_px), Detector(package, CPU, "bf16")(images[:1], sizes_px)
    assert rough.scores.dtype == torch.float32
    torch.testing.assert_close(rough.scores[:5], exact.scores[:5], atol=0.05, rtol=0)


def test_the_packages_weights_are_not_touched(package):
    before = package.digest
    Detector(package, CPU, "bf16")
    assert package.digest == before


def test_ssd512_from_pixels_to_detections(package):
    torch.manual_seed(0)
    architecture = Architecture(kind="ssd512_vgg16", width=0.1)
    record = package.record.model_copy(update={"architecture": architecture})
    large = Detector(ModelPackage(record, SSD(architecture, 3).state_dict()), CPU, "fp32")
    assert large.image_size_px == 512
    images = torch.randint(0, 256, (2, 3, 512, 512), dtype=torch.uint8)
    found = large(images, torch.tensor([[512.0, 512.0], [1024.0, 100.0]]))
    assert [len(each.scores) for each in found] == [20, 20]
    assert (found[1].boxes_xyxy <= torch.tensor([1024.0, 100.0, 1024.0, 100.0])).all()


def test_with_mirror_images_it_finds_in_a_picture_what_it_finds_in_its_mirror_image() -> None:
    """Mirrored. And the best is the best of both pictures by themselves."""
    files = PackageFiles({file.name: file.read_bytes() for file in PACKAGE.iterdir()})
    flipping = files.with_test_time_flip()
    both, one = (Detector(ModelPackage.from_files(each.content), CPU, "fp32") for each in (flipping, files))
    picture, size_px = resize(DrawnExamples(0, 1)[0].image, 300)[None], torch.tensor([[300.0, 300.0]])
    (found,), (of_mirror,) = both(picture, size_px), both(picture.flip(-1), size_px)
    turned = of_mirror.boxes_xyxy[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([300, 0, 300, 0])
    assert len(found.scores) > 10
    assert_same(found, Detections(turned, of_mirror.scores, of_mirror.labels))
    alone = [one(pixels, size_px)[0].scores for pixels in (picture, picture.flip(-1))]
    assert found.scores[0] == max(scores.max() for scores in alone)
    assert flipping.digest != files.digest
