import math

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from model.boxes import cxcywh_to_xyxy
from model.config import Architecture
from model.default_boxes import box_shapes, default_boxes

BOXES = default_boxes(Architecture())


def test_count():
    assert 38 * 38 * 4 + 19 * 19 * 6 + 10 * 10 * 6 + 5 * 5 * 6 + 3 * 3 * 4 + 1 * 1 * 4 == 8732
    assert BOXES.shape == (8732, 4)
    assert BOXES.dtype == torch.float32


def test_first_cell():
    """Map 38×38, a cell each 8 px, scale 0.07, the next 0.15, ratio 2."""
    centre = 4 / 300
    between = math.sqrt(0.07 * 0.15)
    root = math.sqrt(2)
    expected = torch.tensor(
        [
            [centre, centre, 0.07, 0.07],
            [centre, centre, between, between],
            [centre, centre, 0.07 * root, 0.07 / root],
            [centre, centre, 0.07 / root, 0.07 * root],
        ]
    )
    torch.testing.assert_close(BOXES[:4], expected)


def test_order_is_map_row_column_box():
    torch.testing.assert_close(BOXES[4, :2], torch.tensor([12 / 300, 4 / 300]))  # the next column
    torch.testing.assert_close(BOXES[38 * 4, :2], torch.tensor([4 / 300, 12 / 300]))  # the next row
    torch.testing.assert_close(BOXES[38 * 38 * 4], torch.tensor([8 / 300, 8 / 300, 0.15, 0.15]))  # the next map


def test_six_shapes_where_ratios_are_two_and_three():
    shapes = box_shapes(Architecture(), map_index=1)
    between = math.sqrt(0.15 * 0.33)
    wide = [0.15 * math.sqrt(2), 0.15 * math.sqrt(3)]
    narrow = [0.15 / math.sqrt(2), 0.15 / math.sqrt(3)]
    expected = [(0.15, 0.15), (between, between)]
    expected += [(wide[0], narrow[0]), (narrow[0], wide[0]), (wide[1], narrow[1]), (narrow[1], wide[1])]
    torch.testing.assert_close(shapes, torch.tensor(expected))


def test_last_cell_is_the_middle_and_no_side_is_above_the_image():
    assert BOXES[-4:, :2].tolist() == [[0.5, 0.5]] * 4
    # 0.87·√2 = 1.23 is clipped to 1; √(0.87·1.05) = 0.956 is not.
    torch.testing.assert_close(BOXES[-2], torch.tensor([0.5, 0.5, 1.0, 0.87 / math.sqrt(2)]))
    assert BOXES[:, 2:].max() == 1


def test_centres_of_the_last_cells():
    """A map of 10 cells of 32 px is 320 px wide: its last centres lie 4 px outside the image."""
    last = {38: 37.5 * 8, 19: 18.5 * 16, 10: 9.5 * 32, 5: 4.5 * 64, 3: 2.5 * 100, 1: 0.5 * 300}
    assert last == {38: 300, 19: 296, 10: 304, 5: 288, 3: 250, 1: 150}
    start = 0
    for (size, centre_px), boxes_a_cell in zip(last.items(), (4, 6, 6, 6, 4, 4), strict=True):
        start += size * size * boxes_a_cell
        torch.testing.assert_close(BOXES[start - 1, :2] * 300, torch.tensor([centre_px, centre_px]))


def test_clipped_centres():
    """The last row and column of the 10×10 map, nine and a half times 32 px from the corner, come to lie on the border."""
    boxes = default_boxes(Architecture(clip_centres=True))
    outside = BOXES[:, :2] > 1
    assert outside.any(dim=1).sum() == (10 + 9) * 6
    torch.testing.assert_close(BOXES[:, :2][outside], torch.full((20 * 6,), 304 / 300))
    assert (boxes[:, :2][outside] == 1).all()
    assert torch.equal(boxes[:, :2][~outside], BOXES[:, :2][~outside])
    assert torch.equal(boxes[:, 2:], BOXES[:, 2:])


def test_boxes_may_reach_over_the_border():
    assert cxcywh_to_xyxy(BOXES)[0, 0] == 4 / 300 - 0.035


def test_ratios_and_scales_are_the_architectures():
    ratios = ((), (2,), (2,), (2,), (2,), ())
    architecture = Architecture(aspect_ratios=ratios, scales=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7))
    boxes = default_boxes(architecture)
    assert len(boxes) == 38 * 38 * 2 + (19 * 19 + 10 * 10 + 5 * 5 + 3 * 3) * 4 + 2
    torch.testing.assert_close(boxes[0], torch.tensor([4 / 300, 4 / 300, 0.1, 0.1]))


def test_ssd512_has_24564():
    total = 64 * 64 * 4 + (32 * 32 + 16 * 16 + 8 * 8 + 4 * 4) * 6 + 2 * 2 * 4 + 1 * 4
    boxes = default_boxes(Architecture(kind="ssd512_vgg16"))
    assert len(boxes) == total == 24564
    torch.testing.assert_close(boxes[0], torch.tensor([4 / 512, 4 / 512, 0.07, 0.07]))
    torch.testing.assert_close(boxes[-4], torch.tensor([0.5, 0.5, 0.9, 0.9]))


@pytest.mark.parametrize("kind", ["ssd300_vgg16", "ssd512_vgg16"])
def test_they_are_torchvisions(kind):
    architecture = Architecture(kind=kind)
    side = architecture.image_size_px
    generator = DefaultBoxGenerator(
        [list(ratios) for ratios in architecture.aspect_ratios],
        scales=list(architecture.scales),
        steps=list(architecture.steps_px),
    )
    maps = [torch.empty(1, 1, size, size) for size in architecture.feature_map_sizes]
    (expected_px,) = generator(ImageList(torch.empty(1, 3, side, side), [(side, side)]), maps)
    ours_px = cxcywh_to_xyxy(default_boxes(architecture)) * side
    torch.testing.assert_close(ours_px, expected_px, atol=1e-4, rtol=0)
