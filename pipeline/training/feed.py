"""The examples of one training worker: read, decoded, augmented and resized.

For a GPU, tasks of the cluster do that, and Ray Data streams what they made. A worker on CPUs does it itself between two steps: the cores are the same,
and a task on one of them would make all threads of the step wait.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import DataContext, ExecutionResources
from torch import Tensor

from model.config import Preprocessing, TrainingSettings
from model.example import Example, Examples
from model.loss import Targets
from model.order import Share, index_at
from model.prepare import Preparation, Ready, pad_targets
from pipeline.cluster.connect import quiet_ray_data

PREPARE_CPUS = 0.4
"""The share of a core that Ray books for a task; see `pipeline.stages.ray_data`."""
MAX_BLOCK_ROWS = 32
"""The number of examples that one task prepares, or those of one batch if it is larger. Fewer would cost more in tasks
than in work."""
SEGMENT_BYTES = 256 * 2**20
"""The bytes of the examples that one Ray Data execution brings. The execution ends before the first example is learned from.

A running execution spins while its output waits, and takes half of the cores from the training (seen with Ray 2.60).
"""
NUM_SEGMENTS = 2
"""The segments at a time: one is made while the one before it is learned from."""
NUM_READERS = 16
"""The threads in which a worker reads and decodes the images of a batch: object storage takes tens of milliseconds for each."""

READY = pa.schema(
    [("pixels", pa.large_binary()), ("boxes_xyxy", pa.list_(pa.float32())), ("labels", pa.list_(pa.int64()))]
)
"""The columns of a prepared example: pixels (S, S, 3) uint8, boxes (N, 4) flat, labels (N,)."""


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

    def prepared_batches(self, first_step: int, share: Share) -> Iterator[tuple[Tensor, Targets]]:
        """Yield a worker's part of each batch from a step on, prepared in this process when it is asked for.

        Args:
            first_step: the first of the steps that are left.
            share: the worker's part of each batch.

        Returns:
            Images (B, 3, S, S) uint8 in channels-last memory, and their objects.
        """
        examples: Examples = ray.get(self.examples[0])
        prepare = Preparation(self.image_size_px, self.preprocessing, self.settings)
        with ThreadPoolExecutor(NUM_READERS) as readers:
            for step in range(first_step, self.settings.num_steps):
                positions = [share.position(row, step, self.settings.batch_size) for row in range(share.size)]
                indices = [index_at(position, self.num_examples, self.settings.seed) for position in positions]
                read = readers.map(examples.__getitem__, indices)
                ready = [prepare(example, position) for example, position in zip(read, positions, strict=True)]
                images, boxes_xyxy, labels = zip(*ready, strict=True)
                yield torch.stack(images).contiguous(memory_format=torch.channels_last), pad_targets(boxes_xyxy, labels)

    def streamed_batches(self, first_step: int, share: Share, num_cpus: float) -> Iterator[tuple[Tensor, Targets]]:
        """Yield the same, prepared by tasks of the cluster while earlier ones are learned from.

        Args:
            first_step: the first of the steps that are left.
            share: the worker's part of each batch.
            num_cpus: the number of cores that the worker's tasks may book.
        """
        segments = self._segments(first_step, share)
        with ThreadPoolExecutor(max_workers=1) as pool:
            begun = deque(
                pool.submit(self._prepared_blocks, *segment, share, num_cpus)
                for segment in islice(segments, NUM_SEGMENTS)
            )
            while begun:
                for block in begun.popleft().result():
                    yield from self._batches_in(ray.get(block), share)
                begun += [
                    pool.submit(self._prepared_blocks, *segment, share, num_cpus) for segment in islice(segments, 1)
                ]

    def _batches_in(self, block: pa.Table, share: Share) -> Iterator[tuple[Tensor, Targets]]:
        for start in range(0, block.num_rows, share.size):
            yield to_tensors(block.slice(start, share.size), self.image_size_px)

    def _segments(self, first_step: int, share: Share) -> Iterator[tuple[int, int]]:
        """Yield the first and the end step of each segment."""
        example_bytes = 3 * self.image_size_px**2
        num_steps = max(1, SEGMENT_BYTES // (example_bytes * share.size))
        for start in range(first_step, self.settings.num_steps, num_steps):
            yield start, min(start + num_steps, self.settings.num_steps)

    def prepared(self, positions: Iterable[int]) -> Iterator[tuple[int, Example, Ready]]:
        """Yield for each position the index of its example, the example, and what the step learns from it."""
        examples = ray.get(self.examples[0])
        prepare = Preparation(self.image_size_px, self.preprocessing, self.settings)
        for position in positions:
            index = index_at(position, self.num_examples, self.settings.seed)
            yield index, (example := examples[index]), prepare(example, position)

    def _prepared_blocks(
        self, first_step: int, end_step: int, share: Share, num_cpus: float
    ) -> "list[ray.ObjectRef[pa.Table]]":
        """Bring a segment's prepared examples to this node, with whole batches in each block."""
        quiet_ray_data()
        context = DataContext.get_current()
        context.max_errored_blocks = 0  # a run in the driver's process may have allowed some
        context.target_max_block_size = None  # a limit would split a block in the middle of a batch
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = ExecutionResources(cpu=max(num_cpus, PREPARE_CPUS))
        num_rows, block_rows = (end_step - first_step) * share.size, max(1, MAX_BLOCK_ROWS // share.size) * share.size
        rows = [range(start, min(start + block_rows, num_rows)) for start in range(0, num_rows, block_rows)]
        # Tables, because ray.data.range would be a stage of its own, for which half of the cores are kept.
        numbers = ray.data.from_arrow([pa.table({"row": block}) for block in rows])
        prepare = partial(self._prepare, first_step=first_step, share=share)
        prepared = numbers.map_batches(prepare, batch_size=None, batch_format="pyarrow", num_cpus=PREPARE_CPUS)
        blocks: list[ray.ObjectRef[pa.Table]] = prepared.to_arrow_refs()
        ray.wait(blocks, num_returns=len(blocks), fetch_local=True)
        return blocks

    def _prepare(self, numbers: pa.Table, first_step: int, share: Share) -> pa.Table:
        torch.set_num_threads(1)
        positions = (share.position(row, first_step, self.settings.batch_size) for row in numbers["row"].to_pylist())
        rows = [_to_row(*ready) for _, _, ready in self.prepared(positions)]
        return pa.Table.from_pylist(rows, schema=READY)


def _to_row(image: Tensor, boxes_xyxy: Tensor, labels: Tensor) -> dict[str, Any]:
    return {
        "pixels": image.permute(1, 2, 0).contiguous().numpy().tobytes(),
        "boxes_xyxy": boxes_xyxy.flatten().numpy(),
        "labels": labels.numpy(),
    }


def to_tensors(table: pa.Table, image_size_px: int) -> tuple[Tensor, Targets]:
    """Return rows of `READY` as a batch, with the images in channels-last memory."""
    pixels = np.stack([np.frombuffer(value.as_buffer(), np.uint8) for value in table["pixels"]])
    images = torch.from_numpy(pixels).view(-1, image_size_px, image_size_px, 3).permute(0, 3, 1, 2)
    boxes = [torch.tensor(flat, dtype=torch.float32).view(-1, 4) for flat in table["boxes_xyxy"].to_pylist()]
    labels = [torch.tensor(of_image, dtype=torch.int64) for of_image in table["labels"].to_pylist()]
    return images, pad_targets(boxes, labels)
