import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from model.colours import YIQ, Distortion, draw_factors


def picture() -> Tensor:
    """Muted colours, so that no change below reaches 0 or 255."""
    return torch.randint(90, 150, (3, 20, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def changed(image: Tensor, *factors: float) -> Tensor:
    """All pixels of one image, changed by its factors."""
    shown = torch.tensor([[0, 0, image.shape[2], image.shape[1]]])
    return Distortion(torch.tensor([factors]), shown)(image[None])[0]


def apart(one: Tensor, two: Tensor) -> float:
    return float((one.float() - two.float()).abs().max())


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.3, 1.5])
def test_factors_are_torchvisions(factor: float) -> None:
    """But that its values are whole numbers."""
    assert apart(changed(picture(), factor, 1, 1, 0), F.adjust_brightness(picture(), factor)) <= 1.5
    assert apart(changed(picture(), 1, factor, 1, 0), F.adjust_contrast(picture(), factor)) <= 1.5
    assert apart(changed(picture(), 1, 1, factor, 0), F.adjust_saturation(picture(), factor)) <= 1.5


def test_several_at_once_are_those_one_by_one() -> None:
    """But for roundings on the way."""
    one_by_one = F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(picture(), 1.1), 0.8), 1.3)
    assert apart(changed(picture(), 1.1, 0.8, 1.3, 0), one_by_one) <= 3


def test_hue_turns_as_torchvisions_and_leaves_brightness() -> None:
    """Red towards yellow, and back towards blue; a third of a turn brings it to green, a whole one back."""
    red = torch.tensor([160, 100, 100], dtype=torch.uint8).view(3, 1, 1)
    for turns in (-0.05, 0.05):
        for some in (changed(red, 1, 1, 1, turns), F.adjust_hue(red, turns)):
            green, blue = some.flatten().tolist()[1:]
            assert (green - blue) * turns > 0
        assert abs(torch.dot((changed(red, 1, 1, 1, turns) - red).flatten(), YIQ[0])) < 0.1
    assert changed(red, 1, 1, 1, 1 / 3).argmax() == 1
    assert apart(changed(red, 1, 1, 1, 1), red) < 0.01
    grey = torch.full((3, 2, 2), 77, dtype=torch.uint8)
    assert apart(changed(grey, 1, 1, 1.5, 0.05), grey) < 0.01


def test_what_leaves_the_range_is_cut_off() -> None:
    ends = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 3).expand(3, 1, 3)
    assert changed(ends, 1, 1.5, 1, 0)[0].round().flatten().tolist() == [0, 128, 255]


def test_each_image_of_a_batch_is_changed_alone() -> None:
    """Only where it shows a picture; the mean grey, around which contrast turns, is that part's."""
    images = torch.stack((picture(), picture().flip(2)))
    shown = torch.tensor([[0, 0, 30, 20], [7, 3, 25, 11]])
    factors = torch.tensor([[1.1, 0.8, 1.3, 0.02], [0.9, 1.4, 0.6, -0.04]])
    found = Distortion(factors, shown)(images)
    assert apart(found[0], changed(images[0], *factors[0].tolist())) < 0.01
    part = (slice(None), slice(3, 11), slice(7, 25))
    assert apart(found[1][part], changed(images[1][part], *factors[1].tolist())) < 0.01
    around = torch.ones(20, 30, dtype=torch.bool)
    around[3:11, 7:25] = False
    assert torch.equal(found[1][:, around], images[1][:, around].float())


def test_memory_formats_agree() -> None:
    channels_last = picture()[None].contiguous(memory_format=torch.channels_last)[0]
    one, two = (changed(image, 1.1, 0.8, 1.3, 0.02) for image in (picture(), channels_last))
    assert torch.equal(one, two)


def test_each_factor_changes_something_half_the_time() -> None:
    """None of the four does once in 16 times; seeds repeat."""
    torch.manual_seed(0)
    drawn = torch.stack([draw_factors() for _ in range(640)])
    unchanged = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert 20 <= (drawn == unchanged).all(dim=1).sum() <= 60
    assert ((drawn == unchanged).float().mean(dim=0) - 0.5).abs().max() < 0.1
    assert (drawn >= torch.tensor([0.875, 0.5, 0.5, -0.05])).all()
    assert (drawn <= torch.tensor([1.125, 1.5, 1.5, 0.05])).all()
    torch.manual_seed(0)
    assert torch.equal(draw_factors(), drawn[0])
