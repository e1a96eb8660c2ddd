import math

import pytest
import torch
from torch import Tensor

from model.boxes import cxcywh_to_xyxy, decode_boxes
from model.config import Architecture
from model.default_boxes import default_boxes
from model.loss import IGNORED, Losses, Targets, count_matched, hard_negatives, match, multibox_loss

# Four tiles of a quarter each, and one in the middle; cxcywh.
TILES = torch.tensor(
    [
        [0.25, 0.25, 0.5, 0.5],
        [0.75, 0.25, 0.5, 0.5],
        [0.25, 0.75, 0.5, 0.5],
        [0.75, 0.75, 0.5, 0.5],
        [0.50, 0.50, 0.5, 0.5],
    ]
)


def targets(boxes: list[list[list[float]]], labels: list[list[int]]) -> Targets:
    return Targets(torch.tensor(boxes).reshape(len(labels), -1, 4), torch.tensor(labels, dtype=torch.int64))


def test_a_default_box_learns_the_object_that_it_overlaps_by_half():
    boxes, labels = match(targets([[[0.0, 0.0, 0.5, 0.45]]], [[7]]), TILES)  # 0.9 of tile 0; 0.04 / 0.435 of tile 4
    assert labels.tolist() == [[7, 0, 0, 0, 0]]
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.0, 0.0, 0.5, 0.45]))


def test_half_is_enough():
    _, labels = match(targets([[[0.0, 0.0, 0.5, 1.0]]], [[7]]), TILES)  # twice tile 0 or 2: IoU ½ with both
    assert labels.tolist() == [[7, 0, 7, 0, 0]]


def test_each_object_takes_its_best_default_box_whatever_the_overlap():
    _, labels = match(targets([[[0.9, 0.1, 0.95, 0.15]]], [[7]]), TILES)  # 0.01 of tile 1
    assert labels.tolist() == [[0, 7, 0, 0, 0]]


def test_two_objects():
    boxes, labels = match(targets([[[0.0, 0.0, 0.5, 0.5], [0.55, 0.55, 1.0, 1.0]]], [[3, 9]]), TILES)
    assert labels.tolist() == [[3, 0, 0, 9, 0]]
    torch.testing.assert_close(boxes[0, 3], torch.tensor([0.55, 0.55, 1.0, 1.0]))


def test_a_forced_match_wins_over_a_better_overlap():
    """The first object covers tiles 0 and 1, each by half of the union; tile 1 is the second's best."""
    _, labels = match(targets([[[0.0, 0.0, 1.0, 0.5], [0.9, 0.1, 0.95, 0.15]]], [[3, 9]]), TILES)
    assert labels.tolist() == [[3, 9, 0, 0, 0]]


def test_objects_with_one_best_default_box_have_each_one_of_their_own():
    """Both overlap tile 0 by 0.64; the second one takes what it overlaps next, tile 4."""
    boxes, labels = match(targets([[[0.0, 0.0, 0.4, 0.4], [0.05, 0.05, 0.45, 0.45]]], [[3, 9]]), TILES)
    assert labels.tolist() == [[3, 0, 0, 0, 9]]
    torch.testing.assert_close(boxes[0, 4], torch.tensor([0.05, 0.05, 0.45, 0.45]))
    # The one that overlaps it more has it, whichever comes first.
    _, labels = match(targets([[[0.05, 0.05, 0.4, 0.4], [0.0, 0.0, 0.45, 0.45]]], [[3, 9]]), TILES)
    assert labels.tolist() == [[9, 0, 0, 0, 3]]


def test_a_crowd_of_equal_objects_is_learned_whole():
    corners = cxcywh_to_xyxy(torch.tensor([0.5, 0.5, 0.1, 0.1])).tolist()
    _, labels = match(targets([[corners] * 30], [list(range(1, 31))]), default_boxes(Architecture()), match_iou=1.0)
    assert sorted(labels[labels > 0].tolist()) == list(range(1, 31))


def test_padding_matches_nothing():
    one = [0.5, 0.0, 1.0, 0.5]
    alone = match(targets([[one]], [[4]]), TILES)
    padded = match(targets([[one, [0.0] * 4, [0.0] * 4]], [[4, 0, 0]]), TILES)
    assert alone[1].tolist() == padded[1].tolist() == [[0, 4, 0, 0, 0]]
    torch.testing.assert_close(alone[0][0, 1], padded[0][0, 1])


@pytest.mark.parametrize("num_padding", [0, 2])
def test_an_image_without_objects_is_background(num_padding):
    _, labels = match(targets([[[0.0] * 4] * num_padding], [[0] * num_padding]), TILES)
    assert labels.tolist() == [[0, 0, 0, 0, 0]]


def test_a_lower_overlap_matches_more():
    """Of the object's 0.9 of tile 0 the large tile 4 overlaps 0.04 / 0.435, here enough."""
    _, labels = match(targets([[[0.0, 0.0, 0.5, 0.45]]], [[7]]), TILES, match_iou=0.09)
    assert labels.tolist() == [[7, 0, 0, 0, 7]]


def test_three_hard_negatives_for_each_positive():
    losses = torch.tensor([[9.0, 1.0, 5.0, 2.0, 4.0, 3.0], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    labels = torch.tensor([[2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    # The first image's positive has the largest loss and is no negative; the second image has none to count.
    expected = [[False, False, True, False, True, True], [False] * 6]
    assert hard_negatives(losses, labels, 0).tolist() == expected


def test_hard_negatives_run_out():
    labels = torch.tensor([[1, 2, 0, 0]])  # six wanted, two there
    assert hard_negatives(torch.ones(1, 4), labels, 0).tolist() == [[False, False, True, True]]


def test_equal_losses_still_give_exactly_three():
    labels = torch.zeros(1, 100, dtype=torch.int64)
    labels[0, [10, 50]] = 1
    assert hard_negatives(torch.ones(1, 100), labels, 0).sum() == 6


def test_a_floor_of_negatives():
    """Of an image without objects as many count; of one with objects three each, if these are more."""
    losses = torch.tensor([[9.0, 1.0, 5.0, 2.0, 4.0, 3.0], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    labels = torch.tensor([[2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    assert hard_negatives(losses, labels, 2).sum(dim=1).tolist() == [3, 2]
    assert hard_negatives(losses, labels, 2)[1].tolist() == [True, True, False, False, False, False]
    assert hard_negatives(losses, labels, 4).sum(dim=1).tolist() == [4, 4]


@pytest.mark.parametrize(("min_negatives", "expected"), [(0, 3), (3, 4), (6, 5), (12, 8)])
def test_the_divisor_counts_a_third_of_the_negatives(min_negatives, expected):
    """Of an image with three matched boxes, and one with none."""
    labels = torch.tensor([[2, 1, 0, 0, 2], [0, 0, IGNORED, 0, 0]])
    assert count_matched(labels, min_negatives) == expected


def test_what_is_ignored_is_no_negative():
    losses = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0]])
    labels = torch.tensor([[IGNORED, 1, 0, IGNORED, 0]])
    assert hard_negatives(losses, labels, 5).tolist() == [[False, False, True, False, True]]


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ([0.0, 0.0, 1.0, 0.5], [IGNORED, IGNORED, 0, 0, IGNORED]),  # a crowd: it covers half of tile 4
        ([0.9, 0.1, 0.91, 0.11], [0, IGNORED, 0, 0, 0]),  # an object that can't be seen, in tile 1
        ([0.0, 0.0, 0.5, 0.5], [IGNORED, 0, 0, 0, 0]),
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0, 0]),
    ],
)
def test_default_boxes_of_an_ignored_region_learn_nothing(region, expected):
    _, labels = match(targets([[region]], [[IGNORED]]), TILES)
    assert labels.tolist() == [expected]


def test_an_object_in_an_ignored_region_is_learned():
    boxes, labels = match(targets([[[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.5]]], [[IGNORED, 2]]), TILES)
    assert labels.tolist() == [[IGNORED, 2, IGNORED, IGNORED, IGNORED]]
    torch.testing.assert_close(boxes[0, 1], torch.tensor([0.5, 0.0, 1.0, 0.5]))


EQUAL = torch.ones(3)


def loss(
    offsets: Tensor,
    logits: Tensor,
    objects: Targets,
    default_boxes: Tensor,
    class_weights: Tensor = EQUAL,
    min_negatives: int = 0,
) -> Losses:
    """Of a whole batch."""
    matched = match(objects, default_boxes)
    num_matched = count_matched(matched[1], min_negatives).clamp(min=1)
    return multibox_loss(offsets, logits, matched, default_boxes, num_matched, class_weights, min_negatives)


def test_loss_by_hand():
    """One object that is tile 1: offsets wanted are 0; three of the four background tiles count."""
    offsets = torch.zeros(1, 5, 4)
    offsets[0, 1] = torch.tensor([0.5, 2.0, 0.0, 0.0])
    offsets[0, 3] = 100.0  # background learns no offsets
    losses = loss(offsets, torch.zeros(1, 5, 3), targets([[[0.5, 0.0, 1.0, 0.5]]], [[2]]), TILES)
    assert losses.localization.item() == pytest.approx(0.5 * 0.5**2 + (2.0 - 0.5))
    assert losses.classification.item() == pytest.approx((1 + 3) * math.log(3))
    assert losses.total.item() == pytest.approx(losses.localization.item() + losses.classification.item())


def test_a_weight_counts_for_the_boxes_of_its_class_alone():
    """As above, where the object's class counts five times: its offsets and its cross entropy, not the background's."""
    offsets = torch.zeros(1, 5, 4)
    offsets[0, 1] = torch.tensor([0.5, 2.0, 0.0, 0.0])
    one = targets([[[0.5, 0.0, 1.0, 0.5]]], [[2]])
    losses = loss(offsets, torch.zeros(1, 5, 3), one, TILES, torch.tensor([1.0, 7.0, 5.0]))
    assert losses.localization.item() == pytest.approx(5 * (0.5 * 0.5**2 + (2.0 - 0.5)))
    assert losses.classification.item() == pytest.approx((5 + 3) * math.log(3))


def test_loss_is_a_matched_box():
    """Twice the same image: twice the sum, over twice the matched boxes."""
    generator = torch.Generator().manual_seed(0)
    offsets, logits = torch.randn(1, 5, 4, generator=generator), torch.randn(1, 5, 3, generator=generator)
    once = loss(offsets, logits, targets([[[0.5, 0.0, 1.0, 0.5]]], [[2]]), TILES)
    pair = targets([[[0.5, 0.0, 1.0, 0.5]], [[0.5, 0.0, 1.0, 0.5]]], [[2], [2]])
    twice = loss(offsets.repeat(2, 1, 1), logits.repeat(2, 1, 1), pair, TILES)
    torch.testing.assert_close(twice.total, once.total)


def test_losses_of_parts_add_up_to_that_of_the_batch():
    """Each divided by what is matched in all: one object in the first image, two in the second."""
    generator = torch.Generator().manual_seed(0)
    offsets, logits = torch.randn(2, 5, 4, generator=generator), torch.randn(2, 5, 3, generator=generator)
    boxes = [[[0.5, 0.0, 1.0, 0.5], [0.0] * 4], [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]]
    boxes_xyxy, labels = match(targets(boxes, [[2, 0], [1, 2]]), TILES)
    whole = multibox_loss(offsets, logits, (boxes_xyxy, labels), TILES, count_matched(labels, 0), EQUAL, 0)
    parts = [
        multibox_loss(
            offsets[i : i + 1],
            logits[i : i + 1],
            (boxes_xyxy[i : i + 1], labels[i : i + 1]),
            TILES,
            count_matched(labels, 0),
            EQUAL,
            0,
        )
        for i in (0, 1)
    ]
    assert count_matched(labels, 0) == 3
    torch.testing.assert_close(parts[0].total + parts[1].total, whole.total)


@pytest.mark.parametrize("num_padding", [0, 2])
def test_a_batch_without_objects_costs_nothing_and_has_gradients(num_padding):
    offsets: Tensor = torch.randn(2, 5, 4, requires_grad=True)
    logits: Tensor = torch.randn(2, 5, 3, requires_grad=True)
    none = targets([[[0.0] * 4] * num_padding] * 2, [[0] * num_padding] * 2)
    total = loss(offsets, logits, none, TILES).total
    total.backward()
    assert total.item() == 0
    assert logits.grad.count_nonzero() == 0
    assert offsets.grad.count_nonzero() == 0


def test_ignored_boxes_cost_nothing_whatever_they_say():
    """The same without them."""
    generator = torch.Generator().manual_seed(0)
    offsets, logits = torch.randn(1, 5, 4, generator=generator), torch.randn(1, 5, 3, generator=generator)
    objects = targets([[[0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 0.5, 0.5]]], [[2, IGNORED]])
    expected = loss(offsets, logits, objects, TILES, min_negatives=5)
    logits[0, 0] += torch.tensor([-50.0, 50.0, 0.0])
    torch.testing.assert_close(loss(offsets, logits, objects, TILES, min_negatives=5).total, expected.total)


def test_background_alone_teaches_with_a_floor():
    logits: Tensor = torch.zeros(2, 5, 3, requires_grad=True)
    none = targets([[], []], [[], []])
    loss(torch.zeros(2, 5, 4), logits, none, TILES, min_negatives=2).total.backward()
    assert (logits.grad != 0).any(dim=2).sum(dim=1).tolist() == [2, 2]
    assert (logits.grad[..., 0] <= 0).all()  # a step makes background likelier


def test_descending_it_finds_the_objects():
    """Free offsets and logits learn two objects exactly: what is left of the loss goes to 0."""
    offsets, logits = torch.zeros(1, 5, 4, requires_grad=True), torch.zeros(1, 5, 3, requires_grad=True)
    objects = targets([[[0.0, 0.1, 0.5, 0.5], [0.6, 0.6, 1.0, 0.9]]], [[1, 2]])
    optimizer = torch.optim.SGD([offsets, logits], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss(offsets, logits, objects, TILES).total.backward()
        optimizer.step()
    assert loss(offsets, logits, objects, TILES).total < 0.1
    assert logits.argmax(dim=-1).tolist() == [[1, 0, 0, 2, 0]]
    found = decode_boxes(offsets.detach(), TILES)[0, [0, 3]]
    torch.testing.assert_close(found, objects.boxes_xyxy[0], atol=1e-3, rtol=0)
