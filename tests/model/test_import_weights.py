"""Files with the names and shapes of torchvision's and ssd.pytorch's, made here, become packages that say the same."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.ssd import SSD as ReferenceSSD

from model.boxes import decode_boxes
from model.config import Architecture, Preprocessing, Thresholds
from model.default_boxes import default_boxes
from model.import_weights import import_weights
from model.package import ModelPackage
from model.preprocess import normalise
from model.weights_file import WeightsError

Weights = dict[str, Tensor]
THREE = ("disc", "square", "star")


def torchvision_ssd(num_classes: int) -> ReferenceSSD:
    torch.manual_seed(0)
    ssd = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=num_classes).eval().requires_grad_(False)
    ssd.backbone.scale_weight.copy_(torch.linspace(10, 30, 512))  # or a swap of its channels would not show
    return ssd


def as_ssd_pytorch(theirs: Weights) -> Weights:
    """torchvision's tensors under ssd.pytorch's names: one list of VGG16 up to fc7, one of extras, two of heads."""
    places = {
        "backbone.extra.0.1": "vgg.24",
        "backbone.extra.0.3": "vgg.26",
        "backbone.extra.0.5": "vgg.28",
        "backbone.extra.0.7.1": "vgg.31",
        "backbone.extra.0.7.3": "vgg.33",
        "backbone.extra.1.0": "extras.0",
        "backbone.extra.1.2": "extras.1",
        "backbone.extra.2.0": "extras.2",
        "backbone.extra.2.2": "extras.3",
        "backbone.extra.3.0": "extras.4",
        "backbone.extra.3.2": "extras.5",
        "backbone.extra.4.0": "extras.6",
        "backbone.extra.4.2": "extras.7",
    }
    renamed = {"L2Norm.weight": theirs["backbone.scale_weight"]}
    for name, tensor in theirs.items():
        layer, _, end = name.rpartition(".")
        if layer in places:
            renamed[f"{places[layer]}.{end}"] = tensor
        elif layer.startswith("backbone.features."):
            renamed[f"vgg.{layer.removeprefix('backbone.features.')}.{end}"] = tensor
        elif layer.startswith("head."):
            head = "loc" if "regression" in layer else "conf"
            renamed[f"{head}.{layer.rpartition('.')[2]}.{end}"] = tensor
    assert len(renamed) == len(theirs)
    return renamed


@pytest.fixture(scope="module")
def voc_ssd() -> ReferenceSSD:
    return torchvision_ssd(num_classes=21)


@pytest.fixture(scope="module")
def small_ssd() -> Weights:
    return torchvision_ssd(num_classes=4).state_dict()


def assert_same_heads(package: ModelPackage, ssd: ReferenceSSD) -> None:
    images = torch.randint(0, 256, (1, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    inputs = normalise(images, package.record.preprocessing, torch.float32)
    with torch.inference_mode():
        offsets, logits = package.network()(inputs)
        heads = ssd.head(list(ssd.backbone(inputs).values()))
    assert offsets.std() > 0.1
    assert logits.std() > 0.1
    torch.testing.assert_close(offsets, heads["bbox_regression"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, heads["cls_logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "model.", "ssd.net."])
def test_names_with_what_a_wrapper_puts_before_them(prefix, small_ssd):
    for theirs in (small_ssd, as_ssd_pytorch(small_ssd)):
        plain = import_weights(theirs, "x", THREE)
        wrapped = import_weights({f"{prefix}{name}": tensor for name, tensor in theirs.items()}, "x", THREE)
        assert wrapped.digest == plain.digest


def test_ssd_pytorchs_default_boxes_are_passed_over(small_ssd):
    theirs = as_ssd_pytorch(small_ssd)
    assert (
        import_weights(theirs | {"priors": torch.ones(8732, 4)}, "x", THREE).digest
        == import_weights(theirs, "x", THREE).digest
    )


def test_torchvisions_ssd_with_cocos_classes():
    theirs = torchvision_ssd(num_classes=91).state_dict()
    package = import_weights(theirs, "coco", provenance={"file": "a.pth"})
    record = package.record
    assert (record.name, record.architecture, record.preprocessing) == ("coco", Architecture(), Preprocessing())
    assert record.thresholds == Thresholds()
    assert record.provenance == {"source": "torchvision's SSD300", "file": "a.pth"}
    assert len(record.class_names) == 90
    assert (record.class_names[0], record.class_names[17 - 1], record.class_names[-1]) == (
        "person",
        "cat",
        "toothbrush",
    )
    assert torch.equal(package.weights["classification.5.bias"], theirs["head.classification_head.module_list.5.bias"])
    assert all(tensor.dtype == torch.float32 for tensor in package.weights.values())
    again = ModelPackage.from_files(package.to_files())
    assert again.digest == package.digest
    again.network()


def test_torchvisions_heads(voc_ssd):
    names = tuple(f"class {label}" for label in range(1, 21))
    assert_same_heads(import_weights(voc_ssd.state_dict(), "voc", names), voc_ssd)


def test_ssd_pytorchs_heads_boxes_and_thresholds(voc_ssd):
    package = import_weights(as_ssd_pytorch(voc_ssd.state_dict()), "voc")
    assert_same_heads(package, voc_ssd)
    record = package.record
    assert record.architecture == Architecture(scales=(0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05), clip_centres=True)
    assert record.thresholds == Thresholds(
        score_thresh=0.01, nms_thresh=0.45, topk_candidates=200, detections_per_img=200
    )
    assert len(record.class_names) == 20
    assert (record.class_names[0], record.class_names[11], record.class_names[19]) == ("aeroplane", "dog", "tvmonitor")
    assert record.class_names == tuple(sorted(record.class_names))


def test_ssd_pytorchs_pixels(voc_ssd):
    """Its means are 104, 117, 123 in blue, green, red, subtracted from 0 to 255; its network takes red first."""
    package = import_weights(as_ssd_pytorch(voc_ssd.state_dict()), "voc")
    red, green, blue = 10, 200, 255
    image = torch.tensor([red, green, blue], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([red - 123.0, green - 117.0, blue - 104.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalise(image, package.record.preprocessing, torch.float32), expected)


def test_ssd_pytorchs_default_boxes(voc_ssd):
    """First cell: 30 px, √(30·60) px, and 30 px at 2:1 and 1:2, about (4, 4) px; the 10×10 map's last centre is clipped."""
    package = import_weights(as_ssd_pytorch(voc_ssd.state_dict()), "voc")
    boxes = default_boxes(package.record.architecture)
    assert boxes.shape == (8732, 4)
    centre, root = 4 / 300, math.sqrt(2)
    first = [
        [centre, centre, 0.1, 0.1],
        [centre, centre, 0.14142136, 0.14142136],
        [centre, centre, 0.1 * root, 0.1 / root],
        [centre, centre, 0.1 / root, 0.1 * root],
    ]
    torch.testing.assert_close(boxes[:4], torch.tensor(first))
    last_of_third = 38 * 38 * 4 + 19 * 19 * 6 + 10 * 10 * 6 - 6
    torch.testing.assert_close(boxes[last_of_third], torch.tensor([1.0, 1.0, 0.37, 0.37]))
    torch.testing.assert_close(boxes[-3], torch.tensor([0.5, 0.5, math.sqrt(0.88 * 1.05), math.sqrt(0.88 * 1.05)]))
    assert boxes.min() > 0
    assert boxes.max() == 1


def test_ssd_pytorchs_decoding_is_ours():
    """Its centre and size from offsets with variances 0.1 and 0.2, worked out by hand: exp(0.2 · 1) = 1.2214."""
    box, offsets = torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.tensor([[1.0, -1.0, 1.0, 0.0]])
    centre_x, centre_y, width, height = 0.5 + 0.1 * 0.2, 0.5 - 0.1 * 0.4, 0.2 * math.exp(0.2), 0.4
    expected = [centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2]
    torch.testing.assert_close(decode_boxes(offsets, box), torch.tensor([expected]))


def test_ssd_pytorch_with_other_classes_has_its_boxes_for_coco(small_ssd):
    record = import_weights(as_ssd_pytorch(small_ssd), "shapes", THREE).record
    assert record.class_names == THREE
    assert record.architecture.scales == (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
    assert record.architecture.clip_centres


def test_class_names_are_needed_and_as_many_as_the_heads_have(small_ssd):
    with pytest.raises(
        WeightsError, match=r"heads have 3 classes, not the 90 whose names are known; give --class-names"
    ):
        import_weights(small_ssd, "shapes")
    with pytest.raises(
        WeightsError, match=r"heads have 3 classes, not the 20 whose names are known; give --class-names"
    ):
        import_weights(as_ssd_pytorch(small_ssd), "shapes")
    with pytest.raises(WeightsError, match="heads have 3 classes, not 2 as in --class-names"):
        import_weights(small_ssd, "shapes", ("disc", "square"))
    with pytest.raises(WeightsError, match="leave --preprocessing out"):
        import_weights(small_ssd, "shapes", THREE, "caffe")


def test_missing_extra_misshapen_and_not_finite_tensors_have_the_files_names(small_ssd):
    broken = dict(small_ssd)
    del broken["backbone.extra.2.0.bias"]
    broken["head.mask.weight"] = torch.zeros(1)
    broken["backbone.features.0.weight"] = torch.zeros(32, 3, 3, 3)
    broken["backbone.scale_weight"] = torch.full((512,), math.nan)
    broken["backbone.features.2.bias"] = torch.zeros(64, dtype=torch.int64)
    with pytest.raises(WeightsError) as error:
        import_weights(broken, "shapes", THREE)
    start, _, problems = str(error.value).partition(": ")
    assert start == "it looks like torchvision's SSD300, but does not fit"
    assert set(problems.split("; ")) == {
        "missing backbone.extra.2.0.bias",
        "extra head.mask.weight",
        "backbone.features.0.weight has shape (32, 3, 3, 3), not (64, 3, 3, 3)",
        "backbone.scale_weight holds values that are NaN or infinite",
        "backbone.features.2.bias is of torch.int64, not of real numbers",
    }


def test_many_problems_are_counted(small_ssd):
    theirs = as_ssd_pytorch(small_ssd)
    few = {name: tensor for name, tensor in theirs.items() if name.startswith("conf.")}
    with pytest.raises(WeightsError, match=r"ssd\.pytorch's SSD300.*missing vgg\.0\.weight; .*; and 39 more$"):
        import_weights(few, "shapes", THREE)  # 71 in all, 12 of them there, 20 named


def test_a_head_of_another_number_of_classes_is_the_one_that_is_named(small_ssd):
    other = dict(small_ssd) | {"head.classification_head.module_list.0.bias": torch.zeros(4 * 7)}
    with pytest.raises(WeightsError, match=r"module_list\.0\.bias has shape \(28,\), not \(16,\)$"):
        import_weights(other, "shapes", THREE)


def test_names_that_are_no_ones():
    with pytest.raises(
        WeightsError, match=r"its tensors \(layer1\.0\.conv1\.weight\) are named as in none of torchvision"
    ):
        import_weights({"layer1.0.conv1.weight": torch.zeros(1)}, "resnet")
