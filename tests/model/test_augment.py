import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from model.augment import Augmentation, IoUCrop, vertical_flip
from model.config import Preprocessing, TrainingSettings

# Three squares of one colour each on grey; a box's label is the channel that its square is bright in, plus 1.
BOXES = torch.tensor([[10.0, 20.0, 40.0, 50.0], [60.0, 10.0, 100.0, 50.0], [30.0, 70.0, 70.0, 90.0]])
LABELS = torch.tensor([1, 2, 3])
PAPERS = TrainingSettings()


def picture() -> Tensor:
    image = torch.full((3, 100, 120), 100, dtype=torch.uint8)
    for (x_min, y_min, x_max, y_max), label in zip(BOXES.int().tolist(), LABELS.tolist(), strict=True):
        image[:, y_min:y_max, x_min:x_max] = 0
        image[label - 1, y_min:y_max, x_min:x_max] = 255
    return image


def examples(augmentation: Augmentation, count: int, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    torch.manual_seed(seed)
    return [augmentation(picture(), BOXES, LABELS) for _ in range(count)]


def test_boxes_stay_inside_and_in_step_with_labels():
    counts = set()
    for image, boxes, labels in examples(Augmentation(Preprocessing(), PAPERS), 30, seed=0):
        height_px, width_px = image.shape[-2:]
        assert image.dtype == torch.uint8
        assert boxes.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert boxes.shape == (len(labels), 4)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width_px, height_px, width_px, height_px])).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
        counts.add(len(labels))
    assert 3 in counts
    assert len(counts) > 1  # crops cut objects away


def test_a_flip_takes_boxes_and_labels_along():
    """Neither zoomed out nor cropped, each box is where it was, or mirrored."""
    flipped = 0
    still = PAPERS.model_copy(update={"zoom_out_max": 1, "crop_min": 1})
    for image, boxes, labels in examples(Augmentation(Preprocessing(), still), 20, seed=1):
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
    shares = [image.shape[-1] / 120 for image, _, _ in examples(Augmentation(Preprocessing(), mild), 60, seed=0)]
    assert 0.59 < min(shares) < 0.7
    assert 1.3 < max(shares) <= 1.4


def crops(crop: v2.RandomIoUCrop, count: int) -> Tensor:
    """(count, 5): left, top, width, height and how many objects stay; 0, 0, 120, 100 and 3 where nothing is cut."""
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(100, 120))
    torch.manual_seed(0)
    made = [crop.make_params([boxes]) for _ in range(count)]
    whole = {"left": 0, "top": 0, "width": 120, "height": 100, "is_within_crop_area": torch.ones(3)}
    rows = [whole | some for some in made]
    return torch.tensor(
        [[*(row[key] for key in ("left", "top", "width", "height")), row["is_within_crop_area"].sum()] for row in rows]
    ).double()


def test_crops_are_torchvisions():
    """Drawn in another order, they are spread in the same way: means over 2,000 differ by a few standard errors at most."""
    ours, theirs = crops(IoUCrop(), 2000), crops(v2.RandomIoUCrop(), 2000)
    standard_error = (ours.var(dim=0) / 2000 + theirs.var(dim=0) / 2000).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 4 * standard_error).all()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:4] <= torch.tensor([120, 100])).all()
    aspect = ours[:, 2] / ours[:, 3]
    assert (aspect >= 0.5).all()
    assert (aspect <= 2).all()


def test_seeded_runs_are_the_same_and_others_differ():
    augmentation = Augmentation(Preprocessing(), PAPERS)
    once, again, other = (examples(augmentation, 5, seed) for seed in (3, 3, 4))
    for first, second in zip(once, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(a[0].shape != b[0].shape or not torch.equal(a[0], b[0]) for a, b in zip(once, other, strict=True))


def test_an_image_without_objects():
    torch.manual_seed(0)
    for _ in range(10):
        image, boxes, labels = Augmentation(Preprocessing(), PAPERS)(
            picture(), torch.zeros(0, 4), torch.zeros(0).long()
        )
        assert image.shape[0] == 3
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)


def test_results_are_plain_tensors():
    (example,) = examples(Augmentation(Preprocessing(), PAPERS), 1, seed=0)
    assert [type(tensor) for tensor in example] == [Tensor, Tensor, Tensor]


def test_vertical_flip():
    """An image of 100 px height: 20 to 50 from above is 50 to 80 from below."""
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        image, boxes = vertical_flip(picture(), BOXES)
        seen.add(tuple(boxes[0].tolist()))
        x_min, y_min, x_max, y_max = boxes[0].int().tolist()
        assert (image[0, y_min:y_max, x_min:x_max] == 255).all()
    assert seen == {(10, 20, 40, 50), (10, 50, 40, 80)}
