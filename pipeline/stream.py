"""The stages as one Ray Data expression."""

import logging
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from model.package import ModelPackage
from pipeline import storage
from pipeline.capacity import DETECTOR_CPUS, num_cores, num_detectors_that_fit, num_gpus
from pipeline.detect import DetectorActor
from pipeline.errors import SsdBatchError, reason
from pipeline.fetch import fetch_and_decode
from pipeline.meters import METERS
from pipeline.missing import Alone, Returned, run_alone
from pipeline.settings import DetectionSettings

logger = logging.getLogger(__name__)

MAX_BLOCK_ROWS = 64
"""Rows that one task fetches and one actor call detects: results reach the driver in such portions."""
DECODE_CPUS = 0.4
"""Share of a core that Ray books for a task that reads and decodes."""
MAX_RETRIES = 1
"""Of a task or a call whose process dies; Ray's own default is for ever, and with none it gives up what a lost node held."""
MIN_LOST_BLOCKS, LOST_SHARE = 32, 0.01
"""The pass goes on while no more blocks than this, or than this share of all, are lost with processes that die; and so many
images may then kill a process of their own. Beyond, something is broken."""


@dataclass(frozen=True)
class Spread:
    """How images are spread over the cluster.

    min_detectors: actors to start with; num_detectors: at most; block_rows: images that a task reads and a call of an actor
    detects; max_lost: blocks.
    """

    min_detectors: int
    num_detectors: int
    block_rows: int
    max_lost: int


class Stages(NamedTuple):
    """Both stages, as `pipeline.missing.Alone` takes them."""

    decode: Callable[[pa.Table], pa.Table]
    decode_options: dict[str, Any]
    detector: dict[str, Any]
    detector_options: dict[str, Any]


def results(
    work_url: str,
    num_planned: int,
    package: ModelPackage,
    constants: dict[str, Any],
    schema: pa.Schema,
    *,
    spread: Spread,
    batch_size: int,
    max_pixels: int,
) -> Generator[pa.Table, None, None]:
    """Stream the planned images through fetch, decode and detect; exactly one row out for each row in.

    First in blocks; what was lost with a process that died then runs alone, image by image (`pipeline.missing`).

    Args:
        work_url: Parquet file of work, which all nodes can read.
        num_planned: its rows.
        package: the model.
        constants: columns that all rows of the run share.
        schema: the table's columns; those of the work are kept. Beside them come those of `METERS`.
        spread: over the cluster.
        batch_size: images a forward pass.
        max_pixels: larger pictures are failures.

    Yields:
        Tables with these columns, in no set order.

    Raises:
        SsdBatchError: processes keep dying; what was yielded stands, and another run does the rest.
    """
    decode = partial(fetch_and_decode, image_size_px=package.record.architecture.image_size_px, max_pixels=max_pixels)
    stages = make_stages(decode, package, batch_size, constants, pa.schema([*schema, *METERS]))
    returned = Returned()
    for rows in in_blocks(partial(_planned, work_url), spread, stages):
        returned.add(rows)
        yield rows
    num_missing = num_planned - len(returned)
    if not num_missing:
        return
    # All of them, when the pass went on to its end; when it stopped, the first ones, which have the culprits.
    num_alone = min(num_missing, spread.max_lost * spread.block_rows)
    logger.info("%s images did not come back; running %s alone", f"{num_missing:,}", f"{num_alone:,}")
    missing = islice(returned.missing(work_url), num_alone)
    yield from run_alone(missing, Alone(*stages), spread.min_detectors, spread.max_lost)
    if num_missing > num_alone:
        raise SsdBatchError(
            f"processes died, and {num_missing - num_alone:,} images did not come back; run again for these"
        )


def spread_over_cluster(num_images: int, settings: DetectionSettings) -> Spread:
    """As many actors as asked for; 0 = one a GPU, or one a core where there is no GPU."""
    num_detectors = settings.num_detectors or min(num_gpus() or num_cores(), num_detectors_that_fit())
    num_detectors = max(1, min(num_detectors, num_images))
    # Small runs are cut finer, so that all detectors have work from the start to the end.
    block_rows = max(1, min(MAX_BLOCK_ROWS, num_images // (4 * num_detectors)))
    return Spread(
        min(settings.min_detectors or num_detectors, num_detectors),
        num_detectors,
        block_rows,
        max(MIN_LOST_BLOCKS, int(LOST_SHARE * num_images / block_rows)),
    )


def make_stages(
    decode: Callable[[pa.Table], pa.Table],
    package: ModelPackage,
    batch_size: int,
    constants: dict[str, Any],
    schema: pa.Schema,
) -> Stages:
    """Rows to rows with `pipeline.fetch.PIXELS`, as `decode` makes them, and these to rows of a schema with detections."""
    detector = {
        "package_files": [ray.put(package.to_files())],
        "batch_size": batch_size,
        "constants": constants,
        "schema": schema,
    }
    detector_options = {"num_cpus": DETECTOR_CPUS, "num_gpus": 1 if num_gpus() else None}
    return Stages(decode, {"num_cpus": DECODE_CPUS}, detector, detector_options)


def in_blocks(source: Callable[[int], Dataset], spread: Spread, stages: Stages) -> Iterator[pa.Table]:
    """Both stages over all images, in no set order.

    Blocks are lost with processes that die; where more are than `max_lost`, it ends early, and says so.

    Args:
        source: makes the rows, in blocks of so many.
        spread: over the cluster.
        stages: both.
    """
    DataContext.get_current().max_errored_blocks = spread.max_lost
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # It prints a traceback for each lost block.
    try:
        detections = _through(source(spread.block_rows), spread, *stages)
        yield from detections.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayError as error:
        logger.error("the pass over all images stopped: %s", reason(error))


def _planned(work_url: str, block_rows: int) -> Dataset:
    fs, path = storage.filesystem(work_url)
    work = ray.data.read_parquet(path, filesystem=fs, num_cpus=DECODE_CPUS)
    return work.repartition(target_num_rows_per_block=block_rows)


def _through(
    rows: Dataset,
    spread: Spread,
    decode: Callable[[pa.Table], pa.Table],
    decode_options: dict[str, Any],
    detector: dict[str, Any],
    detector_options: dict[str, Any],
) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # Ray 2.60 has no other place for these options yet.
        images = rows.map_batches(
            decode, batch_size=None, batch_format="pyarrow", max_retries=MAX_RETRIES, **decode_options
        )
        return images.map_batches(
            DetectorActor,
            fn_constructor_kwargs=detector,
            # A block a call, in both ways of saying it: with GPUs, Ray refuses None.
            batch_size=spread.block_rows if detector_options["num_gpus"] else None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=spread.min_detectors, max_size=spread.num_detectors),
            # Ray waits for ever once all its actors are gone for good: before that, more blocks than allowed are lost.
            max_restarts=(1 + MAX_RETRIES) * (1 + spread.max_lost),
            max_task_retries=MAX_RETRIES,
            **detector_options,
        )
