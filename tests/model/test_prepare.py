from dataclasses import fields, replace

import torch

from model.config import TrainingSettings
from model.example import Example, plain_truth
from model.loss import IGNORED
from model.prepare import Preparation, Prepared, pad_targets
from tests.model.bright_square import PREPROCESSING, SETTINGS, bright_square


def test_an_example_is_a_function_of_its_position():
    preparation = Preparation(300, PREPROCESSING, TrainingSettings())
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, again, other = (preparation(bright_square(), position) for position in (7, 7, 8))
    assert all(torch.equal(getattr(one, field.name), getattr(again, field.name)) for field in fields(Prepared))
    assert not torch.equal(one.image, other.image)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_examples_are_resized_and_their_boxes_shares():
    """Half the time flipped: 10 to 50 of 80 px is 30 to 70 then."""
    preparation = Preparation(300, PREPROCESSING, SETTINGS)
    seen = set()
    for position in range(20):
        prepared = preparation(bright_square(), position)
        assert prepared.image.shape == (3, 300, 300)
        assert prepared.labels.tolist() == [1]
        seen.add(tuple(prepared.boxes_xyxy[0].tolist()))
    assert seen == {(0.125, 0.25, 0.625, 0.75), (0.375, 0.25, 0.875, 0.75)}


def test_crowds_are_ignored():
    plain = bright_square()
    boxes, labels = torch.cat((plain.truth.boxes_xyxy, torch.tensor([[0.0, 0.0, 80.0, 80.0]]))), torch.tensor([1, 2])
    crowd = replace(plain_truth(boxes, labels), is_crowd=torch.tensor([False, True]))
    found = Preparation(300, PREPROCESSING, SETTINGS)(Example(plain.image, crowd), 0)
    assert found.labels.tolist() == [1, IGNORED]


def test_objects_that_the_input_is_too_small_to_show_are_ignored():
    """Of 80 px the input has 300: an object of 0.7 px has fewer than three there, one of 0.9 px has more."""
    plain = bright_square()
    boxes = torch.tensor([[10.0, 10.0, 10.7, 20.0], [10.0, 10.0, 20.0, 10.7], [10.0, 10.0, 10.9, 20.0]])
    truth = plain_truth(boxes, torch.tensor([1, 1, 2]))
    found = Preparation(300, PREPROCESSING, SETTINGS)(Example(plain.image, truth), 0)
    assert found.labels.tolist() == [IGNORED, IGNORED, 2]
    assert len(found.boxes_xyxy) == 3


def test_objects_are_padded_with_label_0():
    box = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    targets = pad_targets(
        [box, torch.zeros(0, 4), box.repeat(2, 1)],
        [torch.tensor([5]), torch.zeros(0, dtype=torch.int64), torch.tensor([6, 7])],
    )
    assert targets.boxes_xyxy.shape == (3, 2, 4)
    assert targets.labels.tolist() == [[5, 0], [0, 0], [6, 7]]


def test_boxes_of_an_image_at_a_fraction_are_those_of_the_whole():
    whole = bright_square()
    half = Example(whole.image[:, ::2, ::2], whole.truth, original_px=(80, 80))
    preparation = Preparation(300, PREPROCESSING, SETTINGS)
    for position in range(4):
        assert torch.equal(preparation(half, position).boxes_xyxy, preparation(whole, position).boxes_xyxy)
