"""One worker, two workers and a resumed run see the same examples, bit for bit."""

import itertools

import pytest
import ray
import torch
from torch import Tensor

from model.config import Preprocessing, TrainingSettings
from model.example import Example, plain_truth
from model.order import share_of
from model.prepare import Batch
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


def seen(feed: Feed, first_step: int = 0, rank: int = 0, num_workers: int = 1, is_streamed: bool = True) -> list[Batch]:
    share = share_of(rank, num_workers, SETTINGS.batch_size)
    if is_streamed:
        return list(feed.streamed_batches(first_step, share, num_cpus=0.5))
    return list(feed.prepared_batches(first_step, share))


def objects(batch: Batch) -> list[list[list[float]]]:
    """Image by image, without padding."""
    targets = batch.targets
    return [boxes[labels != 0].tolist() for boxes, labels in zip(targets.boxes_xyxy, targets.labels, strict=True)]


def tensors(batch: Batch) -> list[Tensor]:
    assert batch.distortion
    targets, distortion = batch.targets, batch.distortion
    return [batch.images, targets.boxes_xyxy, targets.labels, distortion.factors, distortion.shown]


def are_equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


@pytest.fixture(scope="module")
def whole(feed: Feed) -> list[Batch]:
    return seen(feed)


def test_all_batches_in_order(feed: Feed, whole: list[Batch]) -> None:
    assert [batch.images.shape for batch in whole] == [(5, 3, SIZE_PX, SIZE_PX)] * SETTINGS.num_steps
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in whole)
    indexes = []
    for position, (index, example, prepared) in enumerate(feed.prepared(range(25))):
        batch, row = whole[position // 5], position % 5
        images, _, labels, factors, shown = tensors(batch)
        assert torch.equal(images[row], prepared.image)
        assert objects(batch)[row] == prepared.boxes_xyxy.tolist()
        assert labels[row][: len(prepared.labels)].tolist() == prepared.labels.tolist()
        assert torch.equal(factors[row], prepared.factors)
        assert torch.equal(shown[row], prepared.shown)
        assert example.uri == f"picture {index}"
        indexes.append(index)
    passes = list(itertools.batched(indexes, 7)) if hasattr(itertools, "batched") else [indexes[:7], indexes[7:14]]
    assert [sorted(some) for some in passes[:2]] == [list(range(7))] * 2


def test_two_workers_see_the_halves_of_each_batch(feed: Feed, whole: list[Batch]) -> None:
    for left, right, batch in zip(seen(feed, 0, 0, 2), seen(feed, 0, 1, 2), whole, strict=True):
        assert (len(left.images), len(right.images)) == (2, 3)
        assert torch.equal(torch.cat((left.images, right.images)), batch.images)
        assert objects(left) + objects(right) == objects(batch)


def test_a_resumed_run_sees_what_was_left(feed: Feed, whole: list[Batch]) -> None:
    assert all(are_equal(*pair) for pair in zip(seen(feed, first_step=3), whole[3:], strict=True))


@pytest.mark.parametrize("start", [(3, 0, 1), (2, 1, 2)])
def test_prepared_in_the_worker_they_are_the_same(feed: Feed, start: tuple[int, int, int]) -> None:
    """From whatever step on, for one worker and for two."""
    here = seen(feed, *start, is_streamed=False)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in here)
    assert all(are_equal(*pair) for pair in zip(here, seen(feed, *start), strict=True))


def test_a_long_training_comes_in_several_executions(
    feed: Feed, whole: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two blocks of one step each: three executions for five steps."""
    monkeypatch.setattr("pipeline.training.feed.MAX_BLOCK_ROWS", 5)
    monkeypatch.setattr("pipeline.training.feed.MAX_BLOCKS", 2)
    assert all(are_equal(*pair) for pair in zip(seen(feed), whole, strict=True))


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
