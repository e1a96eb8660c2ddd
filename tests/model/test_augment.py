from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from model.augment import Augmentation, draw_crop
from model.config import Preprocessing, TrainingSettings
from model.loss import IGNORED
from model.preprocess import resize

# Three squares of one colour each on grey; a box's label is the channel that its square is bright in, plus 1.
BOXES = torch.tensor([[10.0, 20.0, 40.0, 50.0], [60.0, 10.0, 100.0, 50.0], [30.0, 70.0, 70.0, 90.0]])
LABELS = torch.tensor([1, 2, 3])
PAPERS = TrainingSettings()
STILL = PAPERS.model_copy(update={"zoom_out_max": 1, "crop_min": 1})
FILL = torch.tensor([round(255 * mean) for mean in Preprocessing().mean], dtype=torch.uint8)


def picture() -> Tensor:
    image = torch.full((3, 100, 120), 100, dtype=torch.uint8)
    for (x_min, y_min, x_max, y_max), label in zip(BOXES.int().tolist(), LABELS.tolist(), strict=True):
        image[:, y_min:y_max, x_min:x_max] = 0
        image[label - 1, y_min:y_max, x_min:x_max] = 255
    return image


def shown(
    settings: TrainingSettings, image: Tensor, boxes: Tensor, labels: Tensor, times: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """What a window shows, in the window's own size or a multiple of it."""
    window, boxes, labels = Augmentation(settings)((image.shape[2], image.shape[1]), boxes, labels)
    size_px = times * (window.right - window.left), times * (window.bottom - window.top)
    pixels, boxes, _ = window.show(image, boxes, size_px, FILL)
    return pixels, boxes, labels


def examples(settings: TrainingSettings, count: int, seed: int, times: int = 1) -> list[tuple[Tensor, Tensor, Tensor]]:
    torch.manual_seed(seed)
    return [shown(settings, picture(), BOXES, LABELS, times) for _ in range(count)]


def test_boxes_stay_inside_and_in_step_with_labels():
    counts = set()
    for image, boxes, labels in examples(PAPERS, 30, seed=0):
        height_px, width_px = image.shape[-2:]
        assert image.dtype == torch.uint8
        assert boxes.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert boxes.shape == (len(labels), 4)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width_px, height_px, width_px, height_px])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        counts.add(len(labels))
    assert 3 in counts
    assert len(counts) > 1  # crops cut objects away


def test_a_flip_takes_boxes_and_labels_along():
    """Neither zoomed out nor cropped, each box is where it was, or mirrored."""
    flipped = 0
    for image, boxes, labels in examples(STILL, 20, seed=1):
        assert image.shape == (3, 100, 120)
        assert sorted(labels.tolist()) == [1, 2, 3]
        widths = (boxes[:, 2] - boxes[:, 0]).tolist()
        assert [widths[labels.tolist().index(label)] for label in (1, 2, 3)] == [30, 40, 40]
        first = boxes[labels.tolist().index(1)].tolist()
        assert first in ([10, 20, 40, 50], [80, 20, 110, 50])
        flipped += first[0] == 80
    assert 3 < flipped < 17


def test_sizes_keep_to_their_limits():
    """Shares of the sides; where the picture is zoomed out and then cropped, those of both."""
    mild = PAPERS.model_copy(update={"zoom_out_max": 1.4, "crop_min": 0.6})
    shares = [image.shape[-1] / 120 for image, _, _ in examples(mild, 60, seed=0)]
    assert 0.59 < min(shares) < 0.7
    assert 1.3 < max(shares) <= 1.4


CropOf = Callable[[], Tensor | None]
"""Draws one: (4,) xyxy pixels, or None where nothing is cut."""


def crops(draw: CropOf, count: int) -> Tensor:
    """(count, 5): left, top, width, height and how many objects stay; 0, 0, 120, 100 and 3 where nothing is cut."""
    torch.manual_seed(0)
    made = [torch.tensor([0, 0, 120, 100]) if crop is None else crop for crop in (draw() for _ in range(count))]
    drawn = torch.stack(made).double()
    centres = ((BOXES[:, :2] + BOXES[:, 2:]) / 2)[None]
    stay = ((centres > drawn[:, None, :2]) & (centres < drawn[:, None, 2:])).all(dim=2).sum(dim=1)
    return torch.cat((drawn[:, :2], drawn[:, 2:] - drawn[:, :2], stay[:, None].double()), dim=1)


def ours() -> Tensor | None:
    return draw_crop(BOXES, torch.tensor([120, 100]), min_scale=0.3)


def torchvisions() -> Tensor | None:
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(100, 120))
    crop = v2.RandomIoUCrop().make_params([boxes])
    if not crop:
        return None
    left, top = crop["left"], crop["top"]
    return torch.tensor([left, top, left + crop["width"], top + crop["height"]])


def test_crops_are_torchvisions() -> None:
    """Drawn in another order, they are spread in the same way: means over 2,000 differ by a few standard errors at most."""
    mine, theirs = crops(ours, 2000), crops(torchvisions, 2000)
    standard_error = (mine.var(dim=0) / 2000 + theirs.var(dim=0) / 2000).sqrt()
    assert ((mine.mean(dim=0) - theirs.mean(dim=0)).abs() < 4 * standard_error).all()
    assert (mine[:, :2] >= 0).all()
    assert (mine[:, :2] + mine[:, 2:4] <= torch.tensor([120, 100])).all()
    aspect = mine[:, 2] / mine[:, 3]
    assert (aspect >= 0.5).all()
    assert (aspect <= 2).all()


@pytest.mark.parametrize("zoom_out_max", [1, 4])
def test_all_but_crops_is_torchvisions_to_the_bit(zoom_out_max: int) -> None:
    """From the same seed, zoomed out or not, mirrored or not; and what reaches beyond the image is left out."""
    boxes = torch.cat(
        (BOXES, torch.tensor([[5.0, 5.0, 7.5, 30.0], [90.0, 80.0, 119.5, 99.0], [100.0, 60.0, 121.0, 90.0]]))
    )
    labels = torch.tensor([1, 2, 3, 4, 5, 6])
    if zoom_out_max > 1:  # torchvision cuts what reaches beyond the image only where it adds something
        boxes, labels = boxes[:5], labels[:5]
    fill = [round(255 * mean) for mean in Preprocessing().mean]
    zoom_out = [v2.RandomZoomOut(fill=fill, side_range=(1, zoom_out_max))] if zoom_out_max > 1 else []
    theirs = v2.Compose([*zoom_out, v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes(min_size=1)])
    settings = STILL.model_copy(update={"zoom_out_max": zoom_out_max})
    for seed in range(30):
        torch.manual_seed(seed)
        image, kept, named = shown(settings, picture(), boxes, labels)
        torch.manual_seed(seed)
        there = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(100, 120))
        expected, target = theirs(tv_tensors.Image(picture()), {"boxes": there, "labels": labels})
        assert torch.equal(image, expected.as_subclass(Tensor))
        assert torch.equal(kept, target["boxes"].as_subclass(Tensor))
        assert torch.equal(named, target["labels"])


@pytest.mark.parametrize("vertical_flip", [False, True])
def test_what_is_cut_out_is_what_the_crop_shows(vertical_flip: bool) -> None:
    """Each object that stays is bright where its box says, and only there."""
    settings = PAPERS.model_copy(update={"vertical_flip": vertical_flip})
    for image, boxes, labels in examples(settings, 60, seed=5):
        for box, label in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            x_min, y_min, x_max, y_max = box
            assert (image[label - 1, y_min:y_max, x_min:x_max] == 255).all()


def test_seeded_runs_are_the_same_and_others_differ():
    once, again, other = (examples(PAPERS, 5, seed) for seed in (3, 3, 4))
    for first, second in zip(once, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(a[0].shape != b[0].shape or not torch.equal(a[0], b[0]) for a, b in zip(once, other, strict=True))


def test_an_image_without_objects():
    torch.manual_seed(0)
    for _ in range(10):
        image, boxes, labels = shown(PAPERS, picture(), torch.zeros(0, 4), torch.zeros(0).long())
        assert image.shape[0] == 3
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)


def test_ignored_regions_move_along_and_draw_no_crop():
    """A crop keeps the part of a region that it shows."""
    whole = torch.tensor([[0.0, 0.0, 120.0, 100.0]])
    mild = PAPERS.model_copy(update={"zoom_out_max": 1})
    torch.manual_seed(0)
    for _ in range(20):
        image, boxes, labels = shown(mild, picture(), torch.cat((BOXES, whole)), torch.tensor([1, 2, 3, IGNORED]))
        (region,) = boxes[labels == IGNORED].tolist()
        assert region == [0, 0, image.shape[-1], image.shape[-2]]
    for _ in range(20):
        image, _, labels = shown(mild, picture(), whole, torch.tensor([IGNORED]))
        assert (image.shape, labels.tolist()) == ((3, 100, 120), [IGNORED])


def test_results_are_plain_tensors():
    (example,) = examples(PAPERS, 1, seed=0)
    assert [type(tensor) for tensor in example] == [Tensor, Tensor, Tensor]


def test_vertical_flip():
    """An image of 100 px height: 20 to 50 from above is 50 to 80 from below."""
    seen = {
        tuple(boxes[0, 1::2].tolist())
        for _, boxes, _ in examples(STILL.model_copy(update={"vertical_flip": True}), 20, seed=0)
    }
    assert seen == {(20, 50), (50, 80)}


def test_a_window_is_resized_once() -> None:
    """As if it were painted in full, and then resized: the same pixels in a crop, nearly the same beside the border of the image."""
    for (full, boxes, _), (small, moved, _) in zip(
        examples(PAPERS, 40, seed=7), examples(PAPERS, 40, seed=7, times=3), strict=True
    ):
        painted = resize(full, (3 * full.shape[1], 3 * full.shape[2]))
        assert small.shape == painted.shape
        assert (small.int() - painted.int()).abs().float().mean() < 1.5
        assert torch.allclose(3 * boxes, moved, atol=1e-3)


@pytest.mark.parametrize("size_px", [(37, 53), (300, 300), (1, 1)])
def test_boxes_move_with_the_pixels_whatever_the_size(size_px: tuple[int, int]) -> None:
    """A bright image that is itself one object: its box, and the part that shows the image, are where the pixels are, to the pixel."""
    image, box = torch.full((3, 100, 120), 255, dtype=torch.uint8), torch.tensor([[0.0, 0.0, 120.0, 100.0]])
    torch.manual_seed(0)
    for _ in range(50):
        window, boxes, _ = Augmentation(PAPERS)((120, 100), box, torch.tensor([1]))
        pixels, moved, part = window.show(image, boxes, size_px, torch.zeros(3, dtype=torch.uint8))
        is_bright = pixels[0] == 255
        rows, columns = is_bright.any(dim=1).nonzero().flatten(), is_bright.any(dim=0).nonzero().flatten()
        found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        assert moved.tolist() == [pytest.approx(found, abs=1e-3)]
        assert part.tolist() == found


def test_an_object_beside_the_image_draws_no_crop() -> None:
    """Its annotation has no size, by which it would be clipped: a crop around its centre would show nothing of the image."""
    box = torch.tensor([[90.0, 40.0, 200.0, 60.0]])
    torch.manual_seed(0)
    for _ in range(400):
        image, _, _ = shown(PAPERS, torch.zeros(3, 100, 100, dtype=torch.uint8), box, torch.tensor([1]))
        assert image.numel()
