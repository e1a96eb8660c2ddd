"""The examples of one training worker: read, decoded, augmented and resized.

For a GPU, tasks of the cluster do that, and Ray Data streams what they made. A worker on CPUs does it itself between two steps: the cores are the same,
and a task on one of them would make all threads of the step wait.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import DataContext, Dataset, ExecutionResources

from model.config import Preprocessing, TrainingSettings
from model.example import Example, Examples
from model.order import Share, index_at
from model.prepare import Batch, Preparation, Prepared, to_batch
from pipeline.cluster.connect import quiet_ray_data

PREPARE_CPUS = 0.4
"""The share of a core that Ray books for a task; see `pipeline.stages.ray_data`."""
MAX_BLOCK_ROWS = 32
"""The number of examples that one task prepares, or those of one batch if it is larger. Fewer would cost more in tasks
than in work."""
AHEAD_BYTES = 512 * 2**20
"""The bytes of prepared examples that may wait for a worker. Tasks then pause."""
MAX_BLOCKS = 4096
"""The number of blocks of one Ray Data execution: 131,072 examples. Each block is an object that the worker owns from the start."""
NUM_READERS = 16
"""The threads that read and decode images, in a worker and in each task: object storage takes tens of milliseconds for each."""

READY = pa.schema(
    [
        ("image", pa.large_binary()),
        ("boxes_xyxy", pa.list_(pa.float32())),
        ("labels", pa.list_(pa.int64())),
        ("factors", pa.list_(pa.float32())),
        ("shown", pa.list_(pa.int64())),
    ]
)
"""The columns of a `Prepared`: the image (S, S, 3) uint8, the boxes (N, 4) flat."""


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
        """Yield a worker's part of each batch from a step on, prepared in this process when it is asked for.

        Args:
            first_step: the first of the steps that are left.
            share: the worker's part of each batch.
        """
        for step in range(first_step, self.settings.num_steps):
            yield to_batch(
                [prepared for _, _, prepared in self.prepared(self._positions(step, range(share.size), share))]
            )

    def streamed_batches(self, first_step: int, share: Share, num_cpus: float) -> Iterator[Batch]:
        """Yield the same, prepared by tasks of the cluster while earlier ones are learned from.

        Args:
            first_step: the first of the steps that are left.
            share: the worker's part of each batch.
            num_cpus: the number of cores that the worker's tasks may book.
        """
        batches = self._unpacked(first_step, share, num_cpus)
        with ThreadPoolExecutor(max_workers=1) as thread:
            following = thread.submit(next, batches, None)
            while batch := following.result():
                following = thread.submit(next, batches, None)
                yield batch

    def prepared(self, positions: Sequence[int]) -> Iterator[tuple[int, Example, Prepared]]:
        """Yield for each position the index of its example, the example, and what the step learns from it."""
        examples: Examples = ray.get(self.examples[0])
        prepare = Preparation(self.image_size_px, self.preprocessing, self.settings)
        indices = [index_at(position, self.num_examples, self.settings.seed) for position in positions]
        with ThreadPoolExecutor(NUM_READERS) as readers:
            read = readers.map(examples.__getitem__, indices)
            for position, index, example in zip(positions, indices, read, strict=True):
                yield index, example, prepare(example, position)

    def _positions(self, first_step: int, rows: Sequence[int], share: Share) -> list[int]:
        return [share.position(row, first_step, self.settings.batch_size) for row in rows]

    def _unpacked(self, first_step: int, share: Share, num_cpus: float) -> Iterator[Batch]:
        """Yield the batches of one Ray Data execution after the other."""
        steps_per_block = max(1, MAX_BLOCK_ROWS // share.size)
        for start in range(first_step, self.settings.num_steps, steps := steps_per_block * MAX_BLOCKS):
            num_rows = (min(start + steps, self.settings.num_steps) - start) * share.size
            blocks = self._blocks(start, num_rows, steps_per_block * share.size, share, num_cpus)
            block: pa.Table
            for block in blocks.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in range(0, block.num_rows, share.size):
                    batch = to_batch(unpacked(block.slice(row, share.size), self.image_size_px))
                    is_on_gpu = torch.cuda.is_available()
                    yield replace(batch, images=batch.images.pin_memory()) if is_on_gpu else batch

    def _blocks(self, first_step: int, num_rows: int, block_rows: int, share: Share, num_cpus: float) -> Dataset:
        """Return the prepared examples of a worker since a step, with whole batches in each block."""
        quiet_ray_data()
        context = DataContext.get_current()
        context.max_errored_blocks = 0  # a run in the driver's process may have allowed some
        context.target_max_block_size = None  # a limit would split a block in the middle of a batch
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = ExecutionResources(
            cpu=max(num_cpus, PREPARE_CPUS), object_store_memory=AHEAD_BYTES
        )

        def prepare(numbers: pa.Table) -> pa.Table:
            torch.set_num_threads(1)
            positions = self._positions(first_step, numbers["row"].to_pylist(), share)
            rows = [_to_row(prepared) for _, _, prepared in self.prepared(positions)]
            return pa.Table.from_pylist(rows, schema=READY)

        rows = [range(start, min(start + block_rows, num_rows)) for start in range(0, num_rows, block_rows)]
        # Blocks, because ray.data.range would be a stage of its own, for which half of the cores are kept.
        numbers = ray.data.from_blocks([pa.table({"row": block}) for block in rows])
        prepared: Dataset = numbers.map_batches(prepare, batch_size=None, batch_format="pyarrow", num_cpus=PREPARE_CPUS)
        return prepared


def _to_row(prepared: Prepared) -> dict[str, Any]:
    pixels = prepared.image.permute(1, 2, 0).contiguous().numpy().tobytes()
    return {"image": pixels} | {name: getattr(prepared, name).flatten().numpy() for name in READY.names[1:]}


def unpacked(table: pa.Table, image_size_px: int) -> list[Prepared]:
    """Return the examples in rows of `READY`."""
    return [_unpacked_row(table, row, image_size_px) for row in range(table.num_rows)]


def _unpacked_row(table: pa.Table, row: int, image_size_px: int) -> Prepared:
    image = np.frombuffer(table["image"][row].as_buffer(), np.uint8).reshape(image_size_px, image_size_px, 3)
    boxes, *others = (torch.from_numpy(table[name][row].values.to_numpy().copy()) for name in READY.names[1:])
    return Prepared(torch.from_numpy(image.copy()).permute(2, 0, 1), boxes.view(-1, 4), *others)
