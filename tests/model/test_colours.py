import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from model.colours import YIQ, changed_colours, distort_colours


def picture() -> Tensor:
    """Muted colours, so that no change below reaches 0 or 255."""
    return torch.randint(90, 150, (3, 20, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def turned(image: Tensor, turns: float) -> Tensor:
    return changed_colours(image, 1, 1, 1, turns)


def apart(one: Tensor, two: Tensor) -> int:
    return int((one.int() - two.int()).abs().max())


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.3, 1.5])
def test_factors_are_torchvisions(factor: float) -> None:
    assert apart(changed_colours(picture(), factor, 1, 1, 0), F.adjust_brightness(picture(), factor)) <= 1
    assert apart(changed_colours(picture(), 1, factor, 1, 0), F.adjust_contrast(picture(), factor)) <= 1
    assert apart(changed_colours(picture(), 1, 1, factor, 0), F.adjust_saturation(picture(), factor)) <= 1


def test_several_at_once_are_those_one_by_one() -> None:
    """But for roundings on the way."""
    one_by_one = F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(picture(), 1.1), 0.8), 1.3)
    assert apart(changed_colours(picture(), 1.1, 0.8, 1.3, 0), one_by_one) <= 3


def test_hue_turns_as_torchvisions_and_leaves_brightness() -> None:
    """Red towards yellow, and back towards blue; a third of a turn brings it to green, a whole one back."""
    red = torch.tensor([160, 100, 100], dtype=torch.uint8).view(3, 1, 1)
    for turns in (-0.05, 0.05):
        for some in (turned(red, turns), F.adjust_hue(red, turns)):
            green, blue = some.flatten().tolist()[1:]
            assert (green - blue) * turns > 0
        assert abs(torch.dot((turned(red, turns).float() - red.float()).flatten(), YIQ[0])) < 1
    assert turned(red, 1 / 3).argmax() == 1
    assert torch.equal(turned(red, 1), red)
    grey = torch.full((3, 2, 2), 77, dtype=torch.uint8)
    assert torch.equal(changed_colours(grey, 1, 1, 1.5, 0.05), grey)


def test_what_leaves_the_range_is_cut_off() -> None:
    ends = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 3).expand(3, 1, 3)
    assert changed_colours(ends, 1, 1.5, 1, 0)[0].flatten().tolist() == [0, 128, 255]


def test_memory_formats_agree() -> None:
    channels_last = picture()[None].contiguous(memory_format=torch.channels_last)[0]
    one, two = (changed_colours(image, 1.1, 0.8, 1.3, 0.02) for image in (picture(), channels_last))
    assert torch.equal(one, two)


def test_each_change_comes_half_the_time() -> None:
    """All four stay away once in 16 times; seeds repeat."""
    torch.manual_seed(0)
    distorted = [distort_colours(picture()) for _ in range(640)]
    assert all(image.dtype == torch.uint8 and image.shape == (3, 20, 30) for image in distorted)
    assert 20 <= sum(torch.equal(image, picture()) for image in distorted) <= 60
    torch.manual_seed(0)
    assert torch.equal(distort_colours(picture()), distorted[0])
