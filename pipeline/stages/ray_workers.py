"""The code that runs in the processes of a Ray cluster: a task that decodes, an actor that detects, and one that does both."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from pipeline.stages.runner import Stages

if TYPE_CHECKING:
    from pipeline.stages.detect import Block

StagesRef = list[Any]
"""The reference to the stages in the object store, in a list. Ray does not resolve a reference in a list."""


def row_of(block: "Block") -> pa.Table:
    """Return a block as a row: the number of its first planned row, and the number after its last."""
    start, stop = block
    return pa.table({"start": [start], "stop": [stop]})


def block_of(row: pa.Table) -> "Block":
    """Return the block of a row that `row_of` made."""
    return row["start"][0].as_py(), row["stop"][0].as_py()


@lru_cache(1)
def stages_of(reference: Any) -> Stages:
    """Return the stages of a reference. The last ones are cached: a process that runs many tasks keeps what it has opened."""
    stages: Stages = ray.get(reference)
    return stages


def decode(row: Any, stages: StagesRef) -> Any:
    """Run the first stage for one block, as a task."""
    from pipeline.stages.detect import decode_block

    return decode_block(stages_of(stages[0]), block_of(row))


def actor_name() -> str:
    """Return Ray's ID of the actor that runs here: the name of a detector."""
    return str(ray.get_runtime_context().get_actor_id())


class DetectorActor:
    """The second stage, as an actor: one model on one GPU, or on one core."""

    def __init__(self, stages: StagesRef) -> None:
        from pipeline.stages.detect import DetectStage

        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self._detect = DetectStage(stages_of(stages[0]), device, actor_name())

    def __call__(self, images: pa.Table) -> pa.Table:
        """Turn rows with pixels, or with an error already, into rows of the table."""
        from pipeline.stages.detect import detect_images

        return detect_images(self._detect, images)


class WorkerActor:
    """An actor that runs both stages: one model on one core."""

    def __init__(self, stages: StagesRef) -> None:
        from pipeline.stages.detect import Worker

        self._worker = Worker(stages_of(stages[0]), actor_name())

    def __call__(self, row: pa.Table) -> pa.Table:
        """Turn a block, given by the numbers of its planned rows, into rows of the table."""
        return self._worker(block_of(row))
