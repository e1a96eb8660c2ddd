"""Our network and postprocessing against torchvision's `ssd300_vgg16`, the reference, with the same weights."""

import pytest
import torch
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.ssd import SSD as ReferenceSSD

from model.config import Architecture, Preprocessing
from model.default_boxes import default_boxes
from model.preprocess import normalise
from model.ssd import SSD

NUM_CLASSES = 21
SIZE_PX = 300
# Trained scores are sharp and random ones flat: larger heads make them separate, so that an order exists to compare.
HEAD_GAIN = 12.0


def reference_ssd() -> ReferenceSSD:
    torch.manual_seed(0)
    reference = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=NUM_CLASSES).eval()
    with torch.no_grad():
        for module in reference.head.classification_head.module_list:
            module.weight.mul_(HEAD_GAIN)
            module.bias.view(-1, NUM_CLASSES)[:, 0] += 4.0
    return reference


def same_weights(reference: ReferenceSSD) -> SSD:
    """Our network with the reference's tensors, in the order in which both hold them."""
    network = SSD(Architecture(), NUM_CLASSES).eval()
    state = reference.state_dict()
    heads = ("head.regression_head", "head.classification_head")
    backbone = [tensor for name, tensor in state.items() if name.startswith("backbone") and "scale" not in name]
    ours = {name: tensor for name, tensor in network.state_dict().items()}
    convolutions = [name for name in ours if name.startswith(("trunk", "conv")) and "norm" not in name]
    renamed = dict(zip(convolutions, backbone, strict=True))
    renamed["conv4_3_norm.scale"] = state["backbone.scale_weight"]
    for head, prefix in zip(heads, ("localization", "classification"), strict=True):
        renamed |= {
            name.replace(f"{head}.module_list", prefix): tensor
            for name, tensor in state.items()
            if name.startswith(head)
        }
    network.load_state_dict(renamed)
    return network


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (4, 3, 12, 12), generator=generator).float()
    return torch.nn.functional.interpolate(coarse, (SIZE_PX, SIZE_PX), mode="bicubic").clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def both(images: torch.Tensor) -> dict[str, object]:
    reference = reference_ssd()
    network = same_weights(reference)
    inputs = normalise(images, Preprocessing(), torch.float32)
    with torch.inference_mode():
        offsets, logits = network(inputs)
        transformed, _ = reference.transform(list(images.float() / 255))
        features = list(reference.backbone(transformed.tensors).values())
        expected = reference.head(features)
        expected_detections = reference(list(images.float() / 255))
        anchors = reference.anchor_generator(transformed, features)[0]
    return {
        "offsets": offsets,
        "logits": logits,
        "expected": expected,
        "detections": expected_detections,
        "inputs": inputs,
        "transformed": transformed.tensors,
        "anchors": anchors,
    }


def test_preprocessing_is_the_references(both):
    torch.testing.assert_close(both["inputs"], both["transformed"], atol=1e-3, rtol=0)


def test_default_boxes_are_the_references(both):
    from model.boxes import cxcywh_to_xyxy

    torch.testing.assert_close(cxcywh_to_xyxy(default_boxes(Architecture())) * SIZE_PX, both["anchors"])


def test_raw_heads_agree(both):
    assert both["offsets"].shape == (4, 8732, 4)
    print(
        (both["offsets"] - both["expected"]["bbox_regression"]).abs().max(),
        (both["logits"] - both["expected"]["cls_logits"]).abs().max(),
        both["logits"].abs().max(),
    )
    torch.testing.assert_close(both["offsets"], both["expected"]["bbox_regression"], atol=1e-4, rtol=0)
    torch.testing.assert_close(both["logits"], both["expected"]["cls_logits"], atol=1e-4, rtol=0)
