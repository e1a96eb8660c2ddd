"""The interface between a run and those who work on its images: processes of this machine, or a Ray cluster."""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.errors import SsdBatchError
from pipeline.settings import DetectionSettings
from pipeline.stages.isolate import Isolated, OneAtATime, run_alone
from pipeline.stages.place import works_here
from pipeline.stages.rows import ROW

logger = logging.getLogger(__name__)

MAX_BLOCK_ROWS, MAX_LARGE_BLOCK_ROWS = 64, 128
"""Rows of a block: the portions in which results reach the driver. Larger ones where a run has very many, for less work of the driver."""
MANY_BLOCKS = 256
"""Blocks for each detector from which on they become larger."""
MIN_LOST_BLOCKS, LOST_SHARE = 32, 0.01
"""The pass goes on while no more blocks than this, or than this share of all, are lost with processes that die; and this many
images may then kill a process of their own. Beyond, something is broken."""

Decoded = dict[str, Any]
"""An image by column: pixels, (S, S, 3) uint8 RGB as a numpy array or None, and the columns of `Stages.decoded`."""


@dataclass(frozen=True)
class Stages:
    """Both functions, and what they need, for whoever runs them; it can be pickled.

    Args:
        read: gives the planned rows [start, stop).
        decode: gives the images of planned rows in order, decoded as they are asked for; it may begin to read when it is called.
        decoded: the columns of an image that `decode` fills, without its pixels.
        package_files: the model.
        batch_size: images per forward pass.
        constants: columns that all rows of the run share.
        schema: the columns of the rows that come out, beside `ROW`.
    """

    read: Callable[[int, int], pa.Table]
    decode: Callable[[pa.Table], Iterator[Decoded]]
    decoded: pa.Schema
    package_files: Mapping[str, bytes]
    batch_size: int
    constants: Mapping[str, Any]
    schema: pa.Schema


@dataclass(frozen=True)
class FetchAndDecode:
    """`pipeline.stages.fetch.fetch_and_decode`, for a process that has not imported torch and does not need to."""

    image_size_px: int
    max_pixels: int

    def __call__(self, rows: pa.Table) -> Iterator[Decoded]:
        """Begin to read the images of these rows."""
        from pipeline.stages.fetch import fetch_and_decode

        return fetch_and_decode(rows, self.image_size_px, self.max_pixels)


@dataclass(frozen=True)
class Spread:
    """How many images go where.

    Args:
        min_detectors: those to start with.
        num_detectors: the most at once.
        block_rows: images of a block.
        max_lost: blocks that may be lost with processes.
    """

    min_detectors: int
    num_detectors: int
    block_rows: int
    max_lost: int


class RunObserver:
    """Is told how a run goes, and keeps it to itself; `pipeline.stages.prometheus.RunMetrics` publishes it."""

    def begin(self, num_planned: int, num_detectors: int, lag_s: float | None) -> None:
        """Note what is known when a run starts to detect."""

    def add(self, rows: pa.Table) -> None:
        """Note rows of the table with the columns of `pipeline.stages.timings.METERS`."""

    def committed(self, seconds: float) -> None:
        """Note a commit, and what it took."""


class Runner(Protocol):
    """Works on images until it is closed. Blocks whose process dies do not come back."""

    name: str
    """As the run's record has it."""

    def num_nodes(self) -> int:
        """Return the number of machines that work at this time."""

    def spread(self, num_images: int) -> Spread:
        """Decide how this many images are spread."""

    def observer(self, table: str, batch_size: int) -> RunObserver:
        """Return who publishes how a run on a table goes."""

    def blocks(self, num_rows: int, spread: Spread) -> Iterator[pa.Table]:
        """Run all planned rows through both stages, in no set order; end early, and say so, when more blocks than allowed are lost."""

    def num_alone(self, spread: Spread) -> int:
        """Return how many images can run alone at once, with what there is now."""

    def one_at_a_time(self) -> OneAtATime:
        """Return what runs one image in processes that hold no other; the calling thread has it for itself."""


def results(runner: Runner, num_planned: int, stages: Stages, spread: Spread) -> Generator[pa.Table, None, None]:
    """Stream the planned images through fetch, decode and detect; exactly one row out for each row in.

    First in blocks; what was lost with a process that died then runs alone, image by image (`pipeline.stages.isolate`).

    Yields:
        Tables with the columns of `Stages.schema`, in no set order.

    Raises:
        SsdBatchError: processes keep dying; what was yielded stands, and another run does the rest.
    """
    is_back = np.zeros(num_planned, dtype=bool)
    blocks = runner.blocks(num_planned, spread)
    for rows in blocks:
        is_back[rows[ROW].to_numpy()] = True
        yield rows.drop_columns([ROW])
    num_missing = num_planned - int(is_back.sum())
    if not num_missing:
        return
    # All of them, when the pass went on to its end; when it stopped, the first ones, which have the culprits.
    num_alone = min(num_missing, spread.max_lost * spread.block_rows)
    logger.info("%s images did not come back; running %s alone", f"{num_missing:,}", f"{num_alone:,}")
    numbers = map(int, islice(np.flatnonzero(~is_back), num_alone))
    with closing(Isolated(runner.one_at_a_time, stages.read, stages.constants, stages.schema)) as isolated:
        for rows in run_alone(numbers, isolated, runner.num_alone(spread), spread.max_lost):
            yield rows.drop_columns([ROW])
    if num_missing > num_alone:
        raise SsdBatchError(
            f"processes died, and {num_missing - num_alone:,} images did not come back; run again for these"
        )


def spread_over(num_detectors: int, min_detectors: int | None, num_images: int) -> Spread:
    """Cut a run into blocks, and say how many detectors start.

    Args:
        num_detectors: that there is room for.
        min_detectors: to start with; all of them where it is None.
        num_images: of the run.
    """
    num_detectors = max(1, min(num_detectors, num_images))
    # Small runs are cut finer, so that all detectors have work from the start to the end.
    small = min(MAX_BLOCK_ROWS, num_images // (4 * num_detectors))
    large = min(MAX_LARGE_BLOCK_ROWS, num_images // (MANY_BLOCKS * num_detectors))
    block_rows = max(1, small, large)
    max_lost = max(MIN_LOST_BLOCKS, int(LOST_SHARE * num_images / block_rows))
    return Spread(min(min_detectors or num_detectors, num_detectors), num_detectors, block_rows, max_lost)


def started(settings: DetectionSettings, stages: Stages, num_rows: int) -> AbstractContextManager[Runner]:
    """Start who works on the images of this many planned rows, in the `place` that was entered.

    Raises:
        SettingError: there is no room for the detectors.
        PackageError: no network can be made of the package.
    """
    if works_here(settings):
        from pipeline.stages.local import local_processes

        return local_processes(settings, stages, num_rows)
    from pipeline.stages.ray_data import ray_cluster

    return ray_cluster(settings, stages)
