"""The interface between a run and the processes that work on its images, on this machine or on a Ray cluster."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.config import Precision
from pipeline.errors import SsdBatchError
from pipeline.settings import DetectionSettings
from pipeline.stages.isolate import Isolated, OneAtATime, run_alone
from pipeline.stages.place import works_here
from pipeline.stages.rows import ROW

if TYPE_CHECKING:
    from pipeline.stages.detect import Block

logger = logging.getLogger(__name__)

MAX_BLOCK_ROWS, MAX_LARGE_BLOCK_ROWS = 64, 1024
"""The most rows of a block, and of a large block.

Results reach the driver block by block. A block costs it 1 to 5 ms without Ray, and 10 to 15 ms with Ray, however many rows there are.
"""
MANY_BLOCKS = 256
"""The number of blocks per detector from which blocks become larger: none takes more than this part of a detector's time."""
NARROWER = 16
"""The factor by which blocks are smaller when the rows of lost ones run again."""
BATCH_SIZES = {"cpu": 8, "cuda": 64}
"""The default number of images per forward pass. A GPU computes many at once; a core's caches hold few."""
MIN_LOST_BLOCKS, IMAGES_PER_LOST_BLOCK = 32, 10_000
"""The blocks that may be lost with processes that die: this number, or one per this many images if that is more. Up to there, the pass
continues. The same number of images may then kill a process of their own. If there are more, something is broken."""

Decoded = dict[str, Any]
"""An image by column: pixels, (S, S, 3) uint8 RGB as a numpy array or None, and the columns of `Stages.decoded`."""


@dataclass(frozen=True)
class Stages:
    """The functions and values that a process needs to run both stages. An instance can be pickled.

    Args:
        read: returns the planned rows [start, stop).
        decode: yields the images of planned rows in order, each decoded when it is asked for. It may begin to read when it is called.
        decoded: the columns of an image that `decode` fills, without its pixels.
        package_files: the files of the model package.
        batch_size: the number of images per forward pass; None leaves it to `batch_size_on`.
        constants: the columns that all rows of the run share.
        schema: the columns of the rows that come out, next to `ROW`.
        precision: the precision of the network.
        num_images: the number of images, by which an engine is chosen; see `model.engine.open_engine`.
    """

    read: Callable[[int, int], pa.Table]
    decode: Callable[[pa.Table], Iterator[Decoded]]
    decoded: pa.Schema
    package_files: Mapping[str, bytes]
    batch_size: int | None
    constants: Mapping[str, Any]
    schema: pa.Schema
    precision: Precision = "auto"
    num_images: int = 0


@dataclass(frozen=True)
class FetchAndDecode:
    """A call of `pipeline.stages.fetch.fetch_and_decode` that a process can hold without importing torch."""

    image_size_px: int
    max_pixels: int
    min_side_px: int | None = None

    def __call__(self, rows: pa.Table) -> Iterator[Decoded]:
        """Begin to read the images of these rows, and return an iterator over them."""
        from pipeline.stages.fetch import fetch_and_decode

        return fetch_and_decode(rows, self.image_size_px, self.max_pixels, self.min_side_px)


@dataclass(frozen=True)
class Spread:
    """The numbers by which a run's images are spread over detectors and blocks.

    Args:
        min_detectors: the number of detectors to start with.
        num_detectors: the most detectors at once.
        block_rows: the number of images per block.
        max_lost: the number of blocks that may be lost with processes.
    """

    min_detectors: int
    num_detectors: int
    block_rows: int
    max_lost: int


def batch_size_on(device: str, batch_size: int | None) -> int:
    """Return the number of images per forward pass on "cuda" or "cpu", as set, or else what suits the device."""
    return batch_size or BATCH_SIZES[device]


class RunObserver:
    """A listener to a run's events that does nothing. `pipeline.stages.prometheus.RunMetrics` publishes the events."""

    def begin(self, num_planned: int, num_detectors: int, lag_s: float | None) -> None:
        """Note the numbers that are known when a run starts to detect."""

    def add(self, rows: pa.Table) -> None:
        """Note rows of the table with the columns of `pipeline.stages.timings.METERS`."""

    def committed(self, seconds: float) -> None:
        """Note a commit and its seconds."""


class Runner(Protocol):
    """Works on images until it is closed. Blocks whose process dies do not come back."""

    name: str
    """The runner's name in the run's record."""

    def num_nodes(self) -> int:
        """Return the number of machines that work now."""

    def spread(self, num_images: int) -> Spread:
        """Decide how this many images are spread over detectors and blocks."""

    def observer(self, table: str) -> RunObserver:
        """Return the observer of a run on a table."""

    def run(self, blocks: "Sequence[Block]", spread: Spread) -> Iterator[pa.Table]:
        """Run blocks of planned rows through both stages, and yield the results of each in no set order.

        End early, with a line in the log, when more blocks than `spread` allows are lost.
        """

    def num_alone(self, spread: Spread) -> int:
        """Return the number of images that can run alone at once, with the machines that are there now."""

    def one_at_a_time(self) -> OneAtATime:
        """Return an object that runs one image in processes that hold no other image. Only the calling thread uses it."""


def results(runner: Runner, num_planned: int, stages: Stages, spread: Spread) -> Generator[pa.Table, None, None]:
    """Stream the planned images through fetch, decode and detect, with exactly one row out per row in.

    Images run in blocks first. The images of blocks that were lost with a process run again in smaller blocks. Those that are lost again
    run alone, one by one (`pipeline.stages.isolate`).

    Yields:
        Tables with the columns of `Stages.schema`, in no set order.

    Raises:
        SsdBatchError: processes keep dying. The rows that were yielded are valid, and another run does the rest.
    """
    is_back = np.zeros(num_planned, dtype=bool)
    lost: Sequence[Block] = [(0, num_planned)]
    for block_rows in _passes(spread.block_rows):
        if block_rows != spread.block_rows:
            logger.info("the images of lost blocks run again in blocks of %s", block_rows)
        for rows in runner.run(cut(lost, block_rows), spread):
            is_back[rows[ROW].to_numpy()] = True
            yield rows.drop_columns([ROW])
        # All of them if the pass reached its end. If it stopped early, only the first ones, which include the culprits.
        lost = cut(_missing(is_back), block_rows)[: spread.max_lost + 1]
        if not lost:
            return
    num_missing = num_planned - int(is_back.sum())
    numbers = [number for start, stop in lost for number in range(start, stop)]
    logger.info("%s images did not come back; running %s alone", f"{num_missing:,}", f"{len(numbers):,}")
    with closing(Isolated(runner.one_at_a_time, stages.read, stages.constants, stages.schema)) as isolated:
        for rows in run_alone(numbers, isolated, runner.num_alone(spread), spread.max_lost):
            yield rows.drop_columns([ROW])
    if num_missing > len(numbers):
        raise SsdBatchError(
            f"processes died, and {num_missing - len(numbers):,} images did not come back; run again for these"
        )


def _passes(block_rows: int) -> Iterator[int]:
    """Yield the number of rows per block of each pass."""
    yield block_rows
    if block_rows >= NARROWER:
        yield block_rows // NARROWER


def cut(ranges: "Iterable[Block]", block_rows: int) -> "list[Block]":
    """Cut ranges of rows into blocks of at most this many rows."""
    return [
        (first, min(first + block_rows, stop)) for start, stop in ranges for first in range(start, stop, block_rows)
    ]


def _missing(is_back: NDArray[np.bool_]) -> "list[Block]":
    """Return the ranges of rows that are not back."""
    edges = np.flatnonzero(np.diff(is_back, prepend=True, append=True))
    return [(start, stop) for start, stop in edges.reshape(-1, 2).tolist()]


def spread_over(
    num_detectors: int, min_detectors: int | None, num_images: int, max_block_rows: int = MAX_LARGE_BLOCK_ROWS
) -> Spread:
    """Cut a run into blocks, and decide how many detectors start.

    Args:
        num_detectors: the number of detectors that there is room for.
        min_detectors: the number of detectors to start with. None means all of them.
        num_images: the number of images of the run.
        max_block_rows: the most rows of a block.
    """
    num_detectors = max(1, min(num_detectors, num_images))
    # Small runs are cut finer, so that all detectors have work from the start to the end.
    small = min(MAX_BLOCK_ROWS, num_images // (4 * num_detectors))
    large = num_images // (MANY_BLOCKS * num_detectors)
    block_rows = max(1, min(max_block_rows, max(small, large)))
    max_lost = max(MIN_LOST_BLOCKS, num_images // IMAGES_PER_LOST_BLOCK)
    return Spread(min(min_detectors or num_detectors, num_detectors), num_detectors, block_rows, max_lost)


def started(settings: DetectionSettings, stages: Stages, num_rows: int) -> AbstractContextManager[Runner]:
    """Return the context of a runner that works on the images of this many planned rows, in the `place` that was entered.

    Raises:
        SettingError: there is no room for the detectors.
        PackageError: no network can be made of the package.
    """
    if works_here(settings):
        from pipeline.stages.local import local_processes

        return local_processes(settings, stages, num_rows)
    from pipeline.stages.ray_data import ray_cluster

    return ray_cluster(settings, stages)
