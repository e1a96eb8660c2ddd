import math

import pytest
import torch

from model.boxes import (
    cxcywh_to_xyxy,
    decode_boxes,
    encode_boxes,
    pairwise_covered,
    pairwise_iou,
    xyxy_to_cxcywh,
)
from model.config import Architecture
from model.default_boxes import default_boxes


def test_formats():
    corners = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    centre_and_size = torch.tensor([[20.0, 40.0, 20.0, 40.0]])
    assert torch.equal(xyxy_to_cxcywh(corners), centre_and_size)
    assert torch.equal(cxcywh_to_xyxy(centre_and_size), corners)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
def test_no_boxes(shape):
    empty = torch.zeros(shape)
    assert xyxy_to_cxcywh(empty).shape == shape
    assert cxcywh_to_xyxy(empty).shape == shape


def test_iou():
    a = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 40.0]])
    b = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],  # the first itself
            [5.0, 0.0, 15.0, 10.0],  # half of the first: 50 of 150
            [2.0, 2.0, 7.0, 6.0],  # inside the first: 20 of 100
            [10.0, 0.0, 20.0, 10.0],  # touches the first
        ]
    )
    expected = torch.tensor([[1.0, 50 / 150, 20 / 100, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(pairwise_iou(a, b), expected)
    torch.testing.assert_close(pairwise_iou(b, a), expected.T)


def test_iou_of_boxes_without_area_is_zero():
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert pairwise_iou(point, point).item() == 0
    assert pairwise_iou(point, torch.tensor([[0.0, 0.0, 9.0, 9.0]])).item() == 0


def test_iou_with_no_boxes():
    assert pairwise_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert pairwise_iou(torch.zeros(2, 5, 4), torch.zeros(3, 4)).shape == (2, 5, 3)


def test_covered_is_a_share_of_the_first_box():
    a = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 3.0, 3.0, 3.0]])
    b = torch.tensor([[5.0, 0.0, 25.0, 10.0], [2.0, 2.0, 7.0, 6.0]])
    torch.testing.assert_close(pairwise_covered(a, b), torch.tensor([[0.5, 0.2], [0.0, 0.0]]))
    torch.testing.assert_close(pairwise_covered(b, a)[:, 0], torch.tensor([0.25, 1.0]))
    assert pairwise_covered(a, torch.zeros(0, 4)).shape == (2, 0)


def test_encode_by_hand():
    default = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = torch.tensor([[0.6, 0.4, 0.4, 0.2]])
    # Centre: +0.1 of 0.2, -0.1 of 0.4, each by the variance 0.1; size: log 2 and log ½, each by 0.2.
    expected = torch.tensor([[0.5 / 0.1, -0.25 / 0.1, math.log(2) / 0.2, -math.log(2) / 0.2]])
    torch.testing.assert_close(encode_boxes(box, default), expected)


def test_no_offset_is_the_default_box():
    defaults = default_boxes(Architecture())
    torch.testing.assert_close(decode_boxes(torch.zeros(8732, 4), defaults), cxcywh_to_xyxy(defaults))


def test_decode_is_the_inverse_of_encode():
    defaults = default_boxes(Architecture())
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, 8732, 4, generator=generator) * 0.9 + 0.05
    decoded = decode_boxes(encode_boxes(boxes, defaults), defaults)
    torch.testing.assert_close(xyxy_to_cxcywh(decoded), boxes, atol=1e-5, rtol=0)


def test_decoded_sides_stay_finite():
    default = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    x_min, _, x_max, _ = decode_boxes(torch.tensor([[0.0, 0.0, 1e6, 1e6]]), default)[0].tolist()
    assert x_max - x_min == pytest.approx(0.2 * 62.5)
