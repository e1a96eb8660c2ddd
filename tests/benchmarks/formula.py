"""Workers that make the rows of a run from a formula, without torch and without images, in the place of the real ones.

`run_by_formula` is a run whose workers these are. All else of it is real: plan, runner, accounting, commits and the check at its end.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from pipeline.cluster.connect import quiet_ray_data
from pipeline.inference import run
from pipeline.inference.settings import InferSettings
from pipeline.stages import local, process, ray_data, ray_workers
from pipeline.stages.rows import PIXELS, finish, numbered
from pipeline.stages.runner import Stages
from pipeline.table.schema import DETECTION

LOOK_INTERVAL_S = 0.5
MANY_BLOCKS = 5000
"""The number of blocks from which the growth of memory can be told."""
NUM_DETECTIONS = "FORMULA_DETECTIONS"
"""The variable with the number of detections per image, which all processes of a run have."""
SIZE_PX = 300
Block = tuple[int, int]


@cache
def arrays(num_rows: int, num_detections: int) -> dict[str, pa.Array]:
    """Return the columns that a detector and a decoder fill, without failures."""
    numbers = np.arange(num_rows * num_detections)
    floats = (numbers % SIZE_PX).astype(np.float32)
    fields = [
        pa.array(1 + numbers % 3, pa.int32()),
        pa.array(["disc", "square", "triangle"]).take(pa.array(numbers % 3)),
        pa.array(floats / SIZE_PX),
        *[pa.array(floats)] * 4,
    ]
    structs = pa.StructArray.from_arrays(fields, fields=list(DETECTION))
    offsets = pa.array(range(0, len(numbers) + 1, num_detections), pa.int32())
    return {
        "detections": pa.ListArray.from_arrays(offsets, structs),
        "max_score": pa.repeat(pa.scalar(0.99, pa.float32()), num_rows),
        **_repeated(num_rows, pa.int32(), width_px=640, height_px=480, num_detections=num_detections),
        **_repeated(num_rows, pa.string(), error_stage=None, error_type=None, error_message=None),
        **_repeated(num_rows, pa.float64(), **{".fetch_s": 0.01, ".decode_s": 0.002, ".detect_s": 0.001, ".batch_share": 0.125}),
        **_repeated(num_rows, pa.int64(), **{".bytes_read": 20_000}),
        **_repeated(num_rows, pa.int32(), **{".num_retries": 0}),
    }  # fmt: skip


def _repeated(num_rows: int, of: pa.DataType, **values: Any) -> dict[str, pa.Array]:
    return {name: pa.repeat(pa.scalar(value, of), num_rows) for name, value in values.items()}


class FormulaWorker:
    """A worker as `pipeline.stages.detect.Worker`, without torch."""

    def __init__(self, stages: Stages, name: str) -> None:
        self._stages, self._name = stages, name

    def __call__(self, block: Block, following: Block | None = None) -> pa.Table:
        """Make the rows of a block."""
        return self.rows(numbered(self._stages.read(*block), block[0]))

    def rows(self, planned: pa.Table) -> pa.Table:
        """Make rows of the table from planned rows."""
        name = pa.repeat(pa.scalar(self._name), planned.num_rows)
        found = arrays(planned.num_rows, int(os.environ[NUM_DETECTIONS])) | {".detector": name}
        return finish(planned, [{}] * planned.num_rows, self._stages.constants, self._stages.schema, **found)


class FormulaActor:
    """An actor as `pipeline.stages.ray_workers.WorkerActor`, without torch."""

    def __init__(self, stages: ray_workers.StagesRef) -> None:
        self._worker = FormulaWorker(ray_workers.stages_of(stages[0]), ray_workers.actor_name())

    def __call__(self, row: pa.Table) -> pa.Table:
        """Make the rows of a block."""
        return self._worker(ray_workers.block_of(row))


class FormulaDetector(FormulaActor):
    """An actor as `pipeline.stages.ray_workers.DetectorActor`, without torch."""

    def __call__(self, images: pa.Table) -> pa.Table:
        """Make the rows of images that `decode` sent."""
        return self._worker.rows(images)


def decode(row: pa.Table, stages: ray_workers.StagesRef) -> pa.Table:
    """Return planned rows with pixels, as `pipeline.stages.ray_workers.decode`. The pixels are few: only their bytes would cost more."""
    start, stop = ray_workers.block_of(row)
    rows = numbered(ray_workers.stages_of(stages[0]).read(start, stop), start)
    return rows.append_column(PIXELS, pa.array([b"pixels"] * rows.num_rows, pa.large_binary()))


def open_formula(stages: Stages, environment: dict[str, str]) -> int:
    """Make the worker of a new process of the local runner, within it."""
    os.environ.update(environment)
    process._worker = FormulaWorker(stages, str(os.getpid()))  # type: ignore[assignment]
    return os.getpid()


@dataclass
class Cost:
    """The cost of a run's stream for the process that started it, without planning and the check at the end."""

    num_images: int = 0
    num_blocks: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory: list[tuple[int, int]] = field(default_factory=list)
    """The number of blocks that came back so far, and the process's bytes then, without those of the object store."""

    def growth_bytes(self) -> float | None:
        """Return the bytes per block by which memory grew, by least squares after the first third. None where rows to commit hide it."""
        later = np.array([point for point in self.memory if point[0] > self.num_blocks / 3], float)
        return float(np.polyfit(*later.T, 1)[0]) if self.num_blocks >= MANY_BLOCKS else None  # type: ignore[arg-type,call-overload]


class Meter:
    """Measures this process while a run streams."""

    def __init__(self) -> None:
        self.cost = Cost()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter")

    def count(self, rows: pa.Table) -> None:
        """Count a block."""
        self.cost.num_blocks += 1
        self.cost.num_images += rows.num_rows

    def __enter__(self) -> "Meter":
        self._began_s, self._began_cpu_s = time.monotonic(), time.process_time()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.cost.wall_s, self.cost.cpu_s = time.monotonic() - self._began_s, time.process_time() - self._began_cpu_s
        self._is_over.set()
        self._thread.join()
        self.cost.memory.append((self.cost.num_blocks, own_bytes()))

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_INTERVAL_S):
            self.cost.memory.append((self.cost.num_blocks, own_bytes()))


def own_bytes() -> int:
    """Return this process's memory without that of files and of Ray's object store."""
    with open("/proc/self/status") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))


def run_by_formula(
    settings: InferSettings, num_gpus: int, num_detections: int, cut_as: int, block_rows: int | None
) -> Cost:
    """Run `infer` with the workers of this module, in a process of its own, and measure its stream.

    Args:
        settings: the settings of the run.
        num_gpus: the GPUs that Ray is told of.
        num_detections: the number of detections per image.
        cut_as: the run is cut into blocks as one of this many images.
        block_rows: the number of rows per block instead.
    """
    os.environ[NUM_DETECTIONS] = str(num_detections)
    meter = Meter()
    _use_formula(meter, cut_as, block_rows)
    if num_gpus:
        ray.init(num_gpus=num_gpus, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        quiet_ray_data()
    run.infer(settings)
    return meter.cost


def _use_formula(meter: Meter, cut_as: int, block_rows: int | None) -> None:
    """Put the workers of this module, and the meter, in their places. They stay there as long as the process lives."""
    stream, results = run.Execution._stream, run.results  # type: ignore[attr-defined]

    def measured(*arguments: Any) -> Any:
        with meter:
            return stream(*arguments)

    def counted(*arguments: Any) -> Iterator[pa.Table]:
        for rows in results(*arguments):
            meter.count(rows)
            yield rows

    def cut(spread: Any) -> Any:
        return lambda runner, num_images: replace(
            spread(runner, num_images), block_rows=block_rows or spread(runner, cut_as).block_rows
        )

    places: list[tuple[Any, str, Any]] = [
        (run.Execution, "_stream", measured),
        (run, "results", counted),
        (process, "_open", open_formula),
        (local.LocalProcesses, "spread", cut(local.LocalProcesses.spread)),
        (ray_data.RayCluster, "spread", cut(ray_data.RayCluster.spread)),
        (ray_data, "decode", decode),
        (ray_data, "WorkerActor", FormulaActor),
        (ray_data, "DetectorActor", FormulaDetector),
    ]
    for place, name, value in places:
        setattr(place, name, value)
