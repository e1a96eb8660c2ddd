"""The stages as one Ray Data expression."""

import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from model.package import ModelPackage
from pipeline import storage
from pipeline.cluster import DETECTOR_CPUS, num_detectors_that_fit
from pipeline.detect import DetectorActor
from pipeline.errors import SsdBatchError, reason
from pipeline.fetch import fetch_and_decode
from pipeline.missing import Alone, Returned, run_alone

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


def results(
    work_url: str,
    num_planned: int,
    package: ModelPackage,
    constants: dict[str, Any],
    schema: pa.Schema,
    *,
    num_detectors: int,
    batch_size: int,
    max_pixels: int,
) -> Iterator[pa.Table]:
    """Stream the planned images through fetch, decode and detect; exactly one row out for each row in.

    First in blocks; what was lost with a process that died then runs alone, image by image (`pipeline.missing`).

    Args:
        work_url: Parquet file of work, which all nodes can read.
        num_planned: its rows.
        package: the model.
        constants: columns that all rows of the run share.
        schema: the table's columns; those of the work are kept.
        num_detectors: actors; 0 = one a GPU, or one a core where there is no GPU.
        batch_size: images a forward pass.
        max_pixels: larger pictures are failures.

    Yields:
        Tables with these columns, in no set order.

    Raises:
        SsdBatchError: processes keep dying; what was yielded stands, and another run does the rest.
    """
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    has_gpus = resources.get("GPU", 0) >= 1
    num_detectors = num_detectors or min(int(resources["GPU" if has_gpus else "CPU"]), num_detectors_that_fit())
    num_detectors = max(1, min(num_detectors, num_planned))
    # Small runs are cut finer, so that all detectors have work from the start to the end.
    block_rows = max(1, min(MAX_BLOCK_ROWS, num_planned // (4 * num_detectors)))
    max_lost = max(MIN_LOST_BLOCKS, int(LOST_SHARE * num_planned / block_rows))
    stages = (
        partial(fetch_and_decode, image_size_px=package.record.architecture.image_size_px, max_pixels=max_pixels),
        {"num_cpus": DECODE_CPUS},
        {
            "package_files": [ray.put(package.to_files())],
            "batch_size": batch_size,
            "constants": constants,
            "schema": schema,
        },
        {"num_cpus": DETECTOR_CPUS, "num_gpus": 1 if has_gpus else None},
    )
    returned = Returned()
    try:
        detections = _in_blocks(work_url, block_rows, num_detectors, max_lost, *stages)
        for rows in detections.iter_batches(batch_size=None, batch_format="pyarrow"):
            returned.add(rows)
            yield rows
    except RayError as error:
        logger.error("the pass over all images stopped: %s", reason(error))
    num_missing = num_planned - len(returned)
    if not num_missing:
        return
    # All of them, when the pass went on to its end; when it stopped, the first ones, which have the culprits.
    num_alone = min(num_missing, max_lost * block_rows)
    logger.info("%s images did not come back; running %s alone", f"{num_missing:,}", f"{num_alone:,}")
    yield from run_alone(islice(returned.missing(work_url), num_alone), Alone(*stages), num_detectors, max_lost)
    if num_missing > num_alone:
        raise SsdBatchError(
            f"processes died, and {num_missing - num_alone:,} images did not come back; run again for these"
        )


def _in_blocks(
    work_url: str,
    block_rows: int,
    num_detectors: int,
    max_lost: int,
    decode: Callable[[pa.Table], pa.Table],
    decode_options: dict[str, Any],
    detector: dict[str, Any],
    detector_options: dict[str, Any],
) -> Dataset:
    """Both stages over all images; blocks are lost with processes that die, and more than `max_lost` are an error."""
    DataContext.get_current().max_errored_blocks = max_lost
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # It prints a traceback for each lost block.
    fs, path = storage.filesystem(work_url)
    work = ray.data.read_parquet(path, filesystem=fs, num_cpus=DECODE_CPUS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # Ray 2.60 has no other place for these options yet.
        images = work.repartition(target_num_rows_per_block=block_rows).map_batches(
            decode, batch_size=None, batch_format="pyarrow", max_retries=MAX_RETRIES, **decode_options
        )
        return images.map_batches(
            DetectorActor,
            fn_constructor_kwargs=detector,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=num_detectors),
            # Ray waits for ever once all its actors are gone for good: before that, more blocks than allowed are lost.
            max_restarts=(1 + MAX_RETRIES) * (1 + max_lost),
            max_task_retries=MAX_RETRIES,
            **detector_options,
        )
