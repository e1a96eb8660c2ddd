"""Our network, postprocessing and loss against torchvision's `ssd300_vgg16`, the reference, with the same weights."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD as ReferenceSSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou

from model.boxes import cxcywh_to_xyxy
from model.config import Architecture, Preprocessing, Thresholds
from model.default_boxes import default_boxes
from model.detector import Detector
from model.import_weights import import_weights
from model.loss import Targets, count_matched, match, multibox_loss
from model.package import ModelPackage
from model.postprocess import Detections, postprocess
from model.preprocess import normalise, resize

NUM_CLASSES = 21
SIZE_PX = 300
SIZES_PX = torch.tensor([[300.0, 300.0], [300.0, 300.0]])
DEFAULT_BOXES = default_boxes(Architecture())
# A trained network's logits spread by about 2 and most default boxes are background; fresh heads do neither.
LOGIT_SPREAD, OFFSET_SPREAD, BACKGROUND_LEAD = 3.0, 1.0, 17.0
NEAR_TIE = 1e-5


@dataclass
class Reference:
    """torchvision's SSD with heads brought to a trained size, and what they say of two images."""

    ssd: ReferenceSSD
    images: Tensor
    offsets: Tensor
    logits: Tensor
    anchors_px: Tensor


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(0)
    ssd = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=NUM_CLASSES).eval().requires_grad_(False)
    images = pictures(2)
    inputs = normalise(images, Preprocessing(), torch.float32)
    features = list(ssd.backbone(inputs).values())
    bring_to_trained_size(ssd, features)
    heads = ssd.head(features)
    anchors = ssd.anchor_generator(ImageList(inputs, [(SIZE_PX, SIZE_PX)] * 2), features)
    return Reference(ssd, images, heads["bbox_regression"], heads["cls_logits"], anchors[0])


@pytest.fixture(scope="module")
def package(reference: Reference) -> ModelPackage:
    names = tuple(f"class {label}" for label in range(1, NUM_CLASSES))
    return import_weights(reference.ssd.state_dict(), "reference", names)


def pictures(count: int) -> Tensor:
    """(count, 3, 300, 300) uint8, photograph-like: patches of colour, and ever weaker detail down to single pixels."""
    generator = torch.Generator().manual_seed(1)
    octaves = [torch.randn(count, 3, side, side, generator=generator) * 50 / side**0.4 for side in (6, 25, 100, 300)]
    layers = [F.interpolate(octave, (SIZE_PX, SIZE_PX), mode="bicubic") for octave in octaves]
    return (128 + sum(layers)).clamp(0, 255).to(torch.uint8)


def bring_to_trained_size(ssd: ReferenceSSD, features: list[Tensor]) -> None:
    spreads = ((ssd.head.regression_head, OFFSET_SPREAD), (ssd.head.classification_head, LOGIT_SPREAD))
    for head, spread in spreads:
        for convolution, feature_map in zip(head.module_list, features, strict=True):
            convolution.weight.mul_(spread / convolution(feature_map).std(correction=0))
    for convolution in ssd.head.classification_head.module_list:
        convolution.bias.view(-1, NUM_CLASSES)[:, 0] += BACKGROUND_LEAD


def assert_same_detections(found: Detections, expected: dict[str, Tensor]) -> None:
    """Each detection has exactly one counterpart, and the order is the same but for near-ties."""
    assert len(found.scores) == len(expected["scores"])
    same = found.labels[:, None] == expected["labels"]
    same &= (found.scores[:, None] - expected["scores"]).abs() <= 1e-4
    same &= (found.boxes_xyxy[:, None] - expected["boxes"]).abs().amax(dim=-1) <= 0.01
    assert (same.sum(dim=0) == 1).all()
    assert (same.sum(dim=1) == 1).all()
    _, counterparts = same.nonzero(as_tuple=True)
    assert (expected["scores"][counterparts].diff() <= NEAR_TIE).all()


def test_default_boxes_are_the_references(reference):
    ours_px = cxcywh_to_xyxy(DEFAULT_BOXES) * SIZE_PX
    torch.testing.assert_close(ours_px, reference.anchors_px, atol=1e-4, rtol=0)


def test_normalised_pixels_are_the_references(reference):
    ours = normalise(reference.images, Preprocessing(), torch.float32)
    theirs, _ = reference.ssd.transform(list(reference.images.float() / 255))
    torch.testing.assert_close(ours, theirs.tensors, atol=1e-3, rtol=0)  # of 255 grey levels


def test_raw_heads_agree(reference, package):
    with torch.inference_mode():
        offsets, logits = package.network()(normalise(reference.images, Preprocessing(), torch.float32))
    assert offsets.shape == (2, 8732, 4)
    assert 5 < logits.abs().max() < 30
    torch.testing.assert_close(offsets, reference.offsets, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, reference.logits, atol=1e-4, rtol=0)


def test_detections_agree(reference, package):
    found = Detector(package, torch.device("cpu"), "fp32")(reference.images, SIZES_PX)
    expected = reference.ssd(list(reference.images.float() / 255))
    for ours, theirs in zip(found, expected, strict=True):
        assert 50 <= len(theirs["labels"]) < 200
        assert len(theirs["labels"].unique()) >= 5
        assert theirs["scores"].max() > 0.2
        assert_same_detections(ours, theirs)


def test_postprocess_agrees_on_literal_heads(reference):
    """Just below and just above nms_thresh: squares of 21 px 8 px apart, IoU 13/29; of 21 and 30.74 px, 0.467."""
    offsets = torch.zeros(2, 8732, 4)
    logits = torch.zeros(2, 8732, NUM_CLASSES)
    logits[..., 0] = 12.0
    logits[0, [2000, 2004, 5000, 5001], 3] = torch.tensor([12.0, 11.0, 13.0, 14.0])
    logits[0, 5000, 7] = 12.5
    found = compare_postprocess(reference, offsets, logits)
    assert [len(detections.labels) for detections in found] == [4, 0]
    assert found[0].labels.tolist() == [3, 3, 7, 3]


def test_postprocess_agrees_on_dense_heads(reference):
    """Thousands of scores of each class pass 0.01: both cuts, topk_candidates and detections_per_img, decide."""
    generator = torch.Generator().manual_seed(2)
    offsets = torch.randn(2, 8732, 4, generator=generator)
    logits = torch.randn(2, 8732, NUM_CLASSES, generator=generator)
    assert ((logits.softmax(dim=-1) > 0.01).sum(dim=1).min()) > 400
    found = compare_postprocess(reference, offsets, logits)
    assert [len(detections.labels) for detections in found] == [200, 200]
    assert len(found[0].labels.unique()) == NUM_CLASSES - 1


def test_postprocess_agrees_where_only_topk_candidates_cuts(reference):
    generator = torch.Generator().manual_seed(3)
    offsets = torch.randn(1, 8732, 4, generator=generator) * 0.1
    logits = torch.randn(1, 8732, NUM_CLASSES, generator=generator)
    thresholds = Thresholds(topk_candidates=5)
    (found,) = compare_postprocess(reference, offsets, logits, thresholds)
    assert 20 < len(found.labels) < 200
    assert found.labels.bincount().max() <= 5


def test_postprocess_agrees_where_most_candidates_are_suppressed(reference):
    """The best 3,000 candidates are one object; ten others have lower scores than all of them."""
    offsets = torch.zeros(1, 8732, 4)
    logits = torch.zeros(1, 8732, NUM_CLASSES)
    logits[..., 0] = 12.0
    centre, size = torch.tensor([0.5, 0.5]), torch.tensor([0.4, 0.4])
    same = slice(0, 3000)
    boxes = DEFAULT_BOXES[same]
    offsets[0, same] = torch.cat(((centre - boxes[:, :2]) / boxes[:, 2:] * 10, (size / boxes[:, 2:]).log() * 5), dim=1)
    logits[0, same, 3] = torch.linspace(14, 15, 3000)
    logits[0, 4000:8000:400, 5] = 11.0
    (found,) = compare_postprocess(reference, offsets, logits)
    assert found.labels.tolist() == [3] + [5] * 10


def test_postprocess_agrees_on_crowded_and_empty_images_together(reference):
    generator = torch.Generator().manual_seed(4)
    offsets = torch.randn(9, 8732, 4, generator=generator) * 0.5
    logits = torch.randn(9, 8732, NUM_CLASSES, generator=generator) * 2
    logits[..., 0] += torch.tensor([14.0, 30.0, 4.0] * 3)[:, None]
    found = compare_postprocess(reference, offsets, logits)
    assert [len(detections.labels) > 0 for detections in found] == [True, False, True] * 3


def compare_postprocess(
    reference: Reference, offsets: Tensor, logits: Tensor, thresholds: Thresholds | None = None
) -> list[Detections]:
    thresholds = thresholds or Thresholds()
    heads = {"bbox_regression": offsets, "cls_logits": logits}
    count = len(offsets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference.ssd, "topk_candidates", thresholds.topk_candidates)
        expected = reference.ssd.postprocess_detections(
            heads, [reference.anchors_px] * count, [(SIZE_PX, SIZE_PX)] * count
        )
    found = postprocess(offsets, logits, DEFAULT_BOXES, SIZES_PX[:1].expand(count, 2), thresholds)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_detections(ours, theirs)
    return found


def test_loss_agrees(reference):
    """Three objects, one object, none."""
    boxes_xyxy = torch.tensor(
        [
            [[0.1, 0.1, 0.5, 0.4], [0.45, 0.3, 0.9, 0.95], [0.7, 0.05, 0.74, 0.1]],
            [[0.2, 0.2, 0.8, 0.9], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
            [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
        ]
    )
    labels = torch.tensor([[3, 7, 20], [1, 0, 0], [0, 0, 0]])
    generator = torch.Generator().manual_seed(4)
    offsets = torch.randn(3, 8732, 4, generator=generator)
    logits = torch.randn(3, 8732, NUM_CLASSES, generator=generator) * 3
    targets = [
        {"boxes": boxes[of > 0] * SIZE_PX, "labels": of[of > 0]} for boxes, of in zip(boxes_xyxy, labels, strict=True)
    ]
    matches = [matched_by(reference, target["boxes"]) for target in targets]
    heads = {"bbox_regression": offsets, "cls_logits": logits}
    expected = reference.ssd.compute_loss(targets, heads, [reference.anchors_px] * 3, matches)

    matched = match(Targets(boxes_xyxy, labels), DEFAULT_BOXES)
    assert [int((row > 0).sum()) for row in matched[1]] == [int((m >= 0).sum()) for m in matches]
    losses = multibox_loss(
        offsets, logits, matched, DEFAULT_BOXES, count_matched(matched[1], 0), torch.ones(logits.shape[2]), 0
    )
    torch.testing.assert_close(losses.localization, expected["bbox_regression"], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses.classification, expected["classification"], rtol=1e-5, atol=0)


def matched_by(reference: Reference, boxes_px: Tensor) -> Tensor:
    """(A,) index of each default box's object, -1 for background; as the reference's `forward` does."""
    if len(boxes_px) == 0:
        return torch.full((8732,), -1)
    return reference.ssd.proposal_matcher(box_iou(boxes_px, reference.anchors_px))


def test_our_resize_differs_from_the_references_by_little():
    """Ours is antialiased and rounds to whole grey levels, theirs is neither: on purpose, and this is the price."""
    image = F.interpolate(pictures(1).float(), (480, 640), mode="bicubic").clamp(0, 255).to(torch.uint8)[0]
    as_is = {"image_mean": [0.0] * 3, "image_std": [1 / 255] * 3}
    transform = GeneralizedRCNNTransform(SIZE_PX, SIZE_PX, fixed_size=(SIZE_PX, SIZE_PX), size_divisible=1, **as_is)
    theirs = transform([image.float() / 255])[0].tensors[0]
    difference = (resize(image, SIZE_PX).float() - theirs).abs()
    assert 0.25 < difference.mean() < 2
    assert difference.max() < 20


def test_our_resize_is_pillows():
    image = F.interpolate(pictures(1).float(), (480, 640), mode="bicubic").clamp(0, 255).to(torch.uint8)[0]
    pillows = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR)
    theirs = torch.from_numpy(np.array(pillows)).permute(2, 0, 1)
    assert (resize(image, SIZE_PX).int() - theirs).abs().max() <= 1
