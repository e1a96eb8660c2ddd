"""The examples of one training worker: read, decoded, augmented and resized.

For a GPU, tasks of the cluster do that, and Ray Data streams what they made. A worker on CPUs does it itself between two steps: the cores are the same,
and a task on one of them would make all threads of the step wait.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import DataContext, ExecutionResources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from model.colours import Distortion
from model.config import Preprocessing, TrainingSettings
from model.example import Example, Examples
from model.loss import Targets
from model.order import Share, index_at
from model.prepare import Batch, Preparation, Prepared, to_batch
from pipeline.cluster.connect import quiet_ray_data

PREPARE_CPUS = 0.4
"""The share of a core that Ray books for a task; see `pipeline.stages.ray_data`."""
MAX_BLOCK_ROWS = 32
"""The number of examples that one task prepares, or those of one batch if it is larger. Fewer would cost more in tasks
than in work."""
AHEAD_BYTES = 512 * 2**20
"""The bytes of prepared batches that may wait for a worker. Tasks then pause."""
AHEAD_BLOCKS = 4
"""The number of blocks that a worker asks for before it needs them."""
MAX_BLOCKS = 4096
"""The number of blocks of one Ray Data execution, as a rule of 32 examples each. Each block is an object that the execution owns from the start."""
NUM_READERS = 8
"""The threads that read and decode images, in a worker and in each task: object storage takes tens of milliseconds for each. As many decoded images
may be in memory."""

COLUMNS = {
    "images": np.uint8, "boxes_xyxy": np.float32, "labels": np.int64, "factors": np.float32, "shown": np.int64,
}  # fmt: skip
"""The tensors of a batch, as the bytes of a row of a block, with the types of their numbers. Images are (B, S, S, 3) there."""


@dataclass(frozen=True)
class Feed:
    """The examples in the order of the training."""

    examples: "list[ray.ObjectRef[Examples]]"
    """The reference to the examples. It is in a list, so that the reference is sent, not the examples."""
    num_examples: int
    """The number of examples."""
    image_size_px: int
    preprocessing: Preprocessing
    settings: TrainingSettings

    def prepared_batches(self, first_step: int, share: Share) -> Iterator[Batch]:
        """Yield a worker's part of each batch from a step on, prepared in this process when it is asked for. The next images are read meanwhile.

        Args:
            first_step: the first of the steps that are left.
            share: the worker's part of each batch.
        """
        steps = range(first_step, self.settings.num_steps)
        parts = (share.positions(step, self.settings.batch_size) for step in steps)
        each = self.prepared(chain.from_iterable(parts))
        for _ in steps:
            yield to_batch([prepared for _, _, prepared in islice(each, share.size)])

    def streamed_batches(self, first_step: int, share: Share, num_cpus: float) -> Iterator[Batch]:
        """Yield the same, prepared by tasks of the cluster while earlier ones are learned from.

        Args:
            first_step: the first of the steps that are left.
            share: the worker's part of each batch.
            num_cpus: the number of cores that the worker's tasks may book.
        """
        batches = self._arriving(first_step, share, num_cpus)
        with ThreadPoolExecutor(max_workers=1) as thread:
            following = thread.submit(next, batches, None)
            while batch := following.result():
                following = thread.submit(next, batches, None)
                yield batch

    def prepared(self, positions: Iterable[int]) -> Iterator[tuple[int, Example, Prepared]]:
        """Yield for each position the index of its example, the example, and what the step learns from it."""
        examples: Examples = ray.get(self.examples[0])
        prepare = Preparation(self.image_size_px, self.preprocessing, self.settings)
        with ThreadPoolExecutor(NUM_READERS) as readers:
            indexed = ((position, index_at(position, self.num_examples, self.settings.seed)) for position in positions)
            asked = ((position, index, readers.submit(examples.__getitem__, index)) for position, index in indexed)
            reading = deque(islice(asked, NUM_READERS))
            while reading:
                position, index, read = reading.popleft()
                example = read.result()
                reading.extend(islice(asked, 1))
                yield index, example, prepare(example, position)

    def _arriving(self, first_step: int, share: Share, num_cpus: float) -> Iterator[Batch]:
        """Yield batches from blocks. Ray Data works in an actor on this node: in this process it would take the step's time."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
        actor: Any = ray.remote(**options)(BlockStream)
        stream = actor.remote(self, first_step, share, num_cpus)
        asked = deque(stream.next_block.remote() for _ in range(AHEAD_BLOCKS))
        while (block := ray.get(asked.popleft())) is not None:
            asked.append(stream.next_block.remote())
            for row in range(block.num_rows):
                yield unpacked(block, row, share.size)

    def blocks(self, first_step: int, share: Share, num_cpus: float) -> Iterator[pa.Table]:
        """Yield blocks of prepared batches, from one Ray Data execution after the other."""
        quiet_ray_data()
        context = DataContext.get_current()
        context.max_errored_blocks = 0  # a run in the driver's process may have allowed some
        context.target_max_block_size = None  # a limit would make several blocks of one
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = ExecutionResources(
            cpu=max(num_cpus, PREPARE_CPUS), object_store_memory=AHEAD_BYTES
        )
        steps_per_block = max(1, MAX_BLOCK_ROWS // share.size)
        starts = range(first_step, self.settings.num_steps, steps_per_block)
        steps = [range(start, min(start + steps_per_block, self.settings.num_steps)) for start in starts]
        for first in range(0, len(steps), MAX_BLOCKS):
            # Blocks, because ray.data.range would be a stage of its own, for which half of the cores are kept.
            numbers = ray.data.from_blocks([pa.table({"step": some}) for some in steps[first : first + MAX_BLOCKS]])
            prepare = partial(self._prepare, share=share)
            prepared = numbers.map_batches(prepare, batch_size=None, batch_format="pyarrow", num_cpus=PREPARE_CPUS)
            yield from prepared.iter_batches(batch_size=None, batch_format="pyarrow")

    def _prepare(self, numbers: pa.Table, share: Share) -> pa.Table:
        """Return the batches of some steps. Images are read ahead of all of them: a worker's part of one batch may be two images."""
        torch.set_num_threads(1)
        parts = [share.positions(step, self.settings.batch_size) for step in numbers["step"].to_pylist()]
        examples = (prepared for _, _, prepared in self.prepared([position for part in parts for position in part]))
        rows = [packed(to_batch(list(islice(examples, share.size)))) for _ in parts]
        return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.large_binary()) for name in COLUMNS]))


class BlockStream:
    """An actor that yields what `Feed.blocks` yields."""

    def __init__(self, feed: Feed, first_step: int, share: Share, num_cpus: float) -> None:
        self._blocks = feed.blocks(first_step, share, num_cpus)

    def next_block(self) -> pa.Table | None:
        """Return the next block; None after the last one."""
        return next(self._blocks, None)


def packed(batch: Batch) -> dict[str, bytes]:
    """Return a row of `COLUMNS`."""
    assert batch.distortion
    tensors = (
        batch.images.permute(0, 2, 3, 1), batch.targets.boxes_xyxy, batch.targets.labels, batch.distortion.factors,
        batch.distortion.shown,
    )  # fmt: skip
    return {name: tensor.numpy().tobytes() for name, tensor in zip(COLUMNS, tensors, strict=True)}


def unpacked(block: pa.Table, row: int, batch_size: int) -> Batch:
    """Return the batch of a row of `COLUMNS`; where there is a GPU, its images are in pinned memory."""
    images, boxes, labels, factors, shown = (
        torch.from_numpy(np.frombuffer(block[name][row].as_buffer(), dtype).copy()) for name, dtype in COLUMNS.items()
    )
    side_px = math.isqrt(images.numel() // (3 * batch_size))
    images = images.view(batch_size, side_px, side_px, 3).permute(0, 3, 1, 2)
    num_objects = labels.numel() // batch_size
    targets = Targets(boxes.view(batch_size, num_objects, 4), labels.view(batch_size, num_objects))
    distortion = Distortion(factors.view(batch_size, 4), shown.view(batch_size, 4))
    return Batch(images.pin_memory() if torch.cuda.is_available() else images, targets, distortion)
