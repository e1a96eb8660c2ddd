"""One training worker's examples, streamed by Ray Data: read, decoded, augmented and resized by tasks of the cluster."""

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
"""Share of a core that Ray books for a task; see `pipeline.stages.ray_data`."""
MAX_BLOCK_ROWS = 32
"""Examples that one task prepares, or those of one batch where that is larger: fewer cost more in tasks than in work."""
SEGMENT_BYTES = 256 * 2**20
"""Examples that one Ray Data execution brings, all of them, before the first is learned from.

A running execution spins while what it has made waits, and takes the training half of its cores (seen with Ray 2.60).
"""

READY = pa.schema(
    [("pixels", pa.large_binary()), ("boxes_xyxy", pa.list_(pa.float32())), ("labels", pa.list_(pa.int64()))]
)
"""An example as it travels: pixels (S, S, 3) uint8, boxes (N, 4) flat, labels (N,)."""


@dataclass(frozen=True)
class Feed:
    """Examples in the order of the training.

    examples: in a list, so that the reference travels and not what it stands for; num_examples: of these.
    """

    examples: "list[ray.ObjectRef[Examples]]"
    num_examples: int
    image_size_px: int
    preprocessing: Preprocessing
    settings: TrainingSettings

    def batches(
        self, first_step: int, share: Share, num_cpus: float, is_ahead: bool
    ) -> Iterator[tuple[Tensor, Targets]]:
        """A worker's part of each batch from a step on: images (B, 3, S, S) uint8, and their objects.

        Args:
            first_step: of those that are left.
            share: the worker's part.
            num_cpus: what its tasks may book.
            is_ahead: make a segment while the one before is learned from. Where both need the same cores they had better take
                turns: a thread that waits for its core lets all threads of the step wait.
        """
        segments, num_begun = self._segments(first_step, share), 2 if is_ahead else 1
        with ThreadPoolExecutor(max_workers=1) as pool:
            begun = deque(
                pool.submit(self._prepared_blocks, *some, share, num_cpus) for some in islice(segments, num_begun)
            )
            while begun:
                for block in begun.popleft().result():
                    yield from self._batches_in(ray.get(block), share)
                begun += [pool.submit(self._prepared_blocks, *some, share, num_cpus) for some in islice(segments, 1)]

    def _batches_in(self, block: pa.Table, share: Share) -> Iterator[tuple[Tensor, Targets]]:
        for start in range(0, block.num_rows, share.size):
            yield to_tensors(block.slice(start, share.size), self.image_size_px)

    def _segments(self, first_step: int, share: Share) -> Iterator[tuple[int, int]]:
        """First and end step of each."""
        example_bytes = 3 * self.image_size_px**2
        num_steps = max(1, SEGMENT_BYTES // (example_bytes * share.size))
        for start in range(first_step, self.settings.num_steps, num_steps):
            yield start, min(start + num_steps, self.settings.num_steps)

    def prepared(self, positions: Iterable[int]) -> Iterator[tuple[int, Example, Ready]]:
        """What stands at each position: its index, the example, and what the step learns of it."""
        examples = ray.get(self.examples[0])
        prepare = Preparation(self.image_size_px, self.preprocessing, self.settings)
        for position in positions:
            index = index_at(position, self.num_examples, self.settings.seed)
            yield index, (example := examples[index]), prepare(example, position)

    def _prepared_blocks(
        self, first_step: int, end_step: int, share: Share, num_cpus: float
    ) -> "list[ray.ObjectRef[pa.Table]]":
        """A segment's examples, on this node: whole batches in each block."""
        quiet_ray_data()
        context = DataContext.get_current()
        context.max_errored_blocks = 0  # where a run in the driver's process has allowed some
        context.target_max_block_size = None  # as one would be split, in the middle of a batch
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = ExecutionResources(cpu=max(num_cpus, PREPARE_CPUS))
        num_rows, block_rows = (end_step - first_step) * share.size, max(1, MAX_BLOCK_ROWS // share.size) * share.size
        rows = [range(start, min(start + block_rows, num_rows)) for start in range(0, num_rows, block_rows)]
        # Tables, where ray.data.range would be a stage of its own, which half of the cores are kept for.
        numbers = ray.data.from_arrow([pa.table({"row": some}) for some in rows])
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
    """Rows of `READY` as a batch; images in channels-last memory."""
    pixels = np.stack([np.frombuffer(value.as_buffer(), np.uint8) for value in table["pixels"]])
    images = torch.from_numpy(pixels).view(-1, image_size_px, image_size_px, 3).permute(0, 3, 1, 2)
    boxes = [torch.tensor(flat, dtype=torch.float32).view(-1, 4) for flat in table["boxes_xyxy"].to_pylist()]
    return images, pad_targets(boxes, [torch.tensor(some, dtype=torch.int64) for some in table["labels"].to_pylist()])
