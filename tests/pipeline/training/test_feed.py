"""One worker, two workers and a resumed run see the same examples, bit for bit."""

import itertools

import pytest
import ray
import torch
from torch import Tensor

from model.config import Preprocessing, TrainingSettings
from model.example import Example, plain_truth
from model.loss import Targets
from model.order import share_of
from pipeline.errors import SettingError
from pipeline.training.driver import scaling_config, wait_for_workers
from pipeline.training.feed import Feed
from pipeline.training.settings import ClusterTraining

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SIZE_PX = 32
SETTINGS = TrainingSettings(num_steps=5, batch_size=5, seed=3)


@pytest.fixture(scope="module")
def feed(local_cluster) -> Feed:
    """Seven pictures of noise, the i-th with i objects: batches of five reach over the ends of passes."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for number in range(7):
        low = 30 * torch.rand(number, 2, generator=generator)
        boxes = torch.cat((low, low + 10), dim=1)
        image = torch.randint(0, 256, (3, 40 + number, 60), dtype=torch.uint8, generator=generator)
        examples.append(Example(image, plain_truth(boxes, torch.arange(1, number + 1)), f"picture {number}"))
    return Feed([ray.put(examples)], len(examples), SIZE_PX, Preprocessing(), SETTINGS)


def seen(
    feed: Feed, first_step: int = 0, rank: int = 0, num_workers: int = 1, is_streamed: bool = True
) -> list[tuple[Tensor, Targets]]:
    share = share_of(rank, num_workers, SETTINGS.batch_size)
    if is_streamed:
        return list(feed.streamed_batches(first_step, share, num_cpus=0.5))
    return list(feed.prepared_batches(first_step, share))


def objects(targets: Targets) -> list[list[list[float]]]:
    """Image by image, without padding."""
    return [boxes[labels != 0].tolist() for boxes, labels in zip(targets.boxes_xyxy, targets.labels, strict=True)]


@pytest.fixture(scope="module")
def whole(feed: Feed) -> list[tuple[Tensor, Targets]]:
    return seen(feed)


def test_all_batches_in_order(feed: Feed, whole: list[tuple[Tensor, Targets]]) -> None:
    assert [images.shape for images, _ in whole] == [(5, 3, SIZE_PX, SIZE_PX)] * SETTINGS.num_steps
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in whole)
    indexes = []
    for position, (index, example, (image, boxes, labels)) in enumerate(feed.prepared(range(25))):
        images, targets = whole[position // 5]
        assert torch.equal(images[position % 5], image)
        assert objects(targets)[position % 5] == boxes.tolist()
        assert targets.labels[position % 5][: len(labels)].tolist() == labels.tolist()
        assert example.uri == f"picture {index}"
        indexes.append(index)
    passes = list(itertools.batched(indexes, 7)) if hasattr(itertools, "batched") else [indexes[:7], indexes[7:14]]
    assert [sorted(some) for some in passes[:2]] == [list(range(7))] * 2


def test_two_workers_see_the_halves_of_each_batch(feed: Feed, whole: list[tuple[Tensor, Targets]]) -> None:
    halves = zip(seen(feed, 0, 0, 2), seen(feed, 0, 1, 2), strict=True)
    for ((left, of_left), (right, of_right)), (images, targets) in zip(halves, whole, strict=True):
        assert (len(left), len(right)) == (2, 3)
        assert torch.equal(torch.cat((left, right)), images)
        assert objects(of_left) + objects(of_right) == objects(targets)


def test_a_resumed_run_sees_what_was_left(feed: Feed, whole: list[tuple[Tensor, Targets]]) -> None:
    for (images, targets), (expected, of_expected) in zip(seen(feed, first_step=3), whole[3:], strict=True):
        assert torch.equal(images, expected)
        assert objects(targets) == objects(of_expected)


@pytest.mark.parametrize("start", [(0, 0, 1), (3, 0, 1), (0, 0, 2), (2, 1, 2)])
def test_prepared_in_the_worker_they_are_the_same(feed: Feed, start: tuple[int, int, int]) -> None:
    """From whatever step on, for one worker and for two."""
    for (images, targets), (expected, of_expected) in zip(
        seen(feed, *start, is_streamed=False), seen(feed, *start), strict=True
    ):
        assert torch.equal(images, expected)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(targets.boxes_xyxy, of_expected.boxes_xyxy)
        assert torch.equal(targets.labels, of_expected.labels)


def test_a_long_training_comes_in_segments(
    feed: Feed, whole: list[tuple[Tensor, Targets]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two steps each: three executions for five steps."""
    monkeypatch.setattr("pipeline.training.feed.SEGMENT_BYTES", 11 * 3 * SIZE_PX**2)
    for (images, targets), (expected, of_expected) in zip(seen(feed), whole, strict=True):
        assert torch.equal(images, expected)
        assert objects(targets) == objects(of_expected)


@pytest.mark.usefixtures("local_cluster")
def test_more_workers_than_the_cluster_holds() -> None:
    wait_for_workers(ClusterTraining(num_workers=1, batch_size=100, node_wait_s=86_400))
    with pytest.raises(
        SettingError, match=r"num_workers: 100 are too many for \d+ cores: each books 0\.5, and 0\.4 for"
    ):
        wait_for_workers(ClusterTraining(num_workers=100, batch_size=100))
    elastic = ClusterTraining(num_workers=100, min_workers=1, batch_size=100)
    wait_for_workers(elastic)
    assert scaling_config(elastic).num_workers == (1, 100)
