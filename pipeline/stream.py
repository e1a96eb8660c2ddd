"""The stages as one Ray Data expression."""

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy
from ray.util.annotations import RayDeprecationWarning

from model.package import ModelPackage
from pipeline import storage
from pipeline.detect import DetectorActor
from pipeline.fetch import fetch_and_decode

MAX_BLOCK_ROWS = 64
"""Rows that one task fetches and one actor call detects: results reach the driver in such portions."""
DECODE_CPUS, DETECTOR_CPUS = 0.4, 0.5
"""Shares of a core that Ray books: two actors at one each would leave none for reading on a machine of two cores."""
MAX_RESTARTS = 3
"""Of an actor that dies, and of a call that it took along; Ray's own default is for ever."""


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
    """
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    has_gpus = resources.get("GPU", 0) >= 1
    num_detectors = num_detectors or int(resources["GPU" if has_gpus else "CPU"])
    num_detectors = max(1, min(num_detectors, num_planned))
    # Small runs are cut finer, so that all detectors have work from the start to the end.
    block_rows = max(1, min(MAX_BLOCK_ROWS, num_planned // (4 * num_detectors)))
    fs, path = storage.filesystem(work_url)
    work = ray.data.read_parquet(path, filesystem=fs, num_cpus=DECODE_CPUS)
    decode = partial(fetch_and_decode, image_size_px=package.record.architecture.image_size_px, max_pixels=max_pixels)
    images = work.repartition(target_num_rows_per_block=block_rows).map_batches(
        decode, batch_size=None, batch_format="pyarrow", num_cpus=DECODE_CPUS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # Ray 2.60 has no other place for max_restarts yet.
        detections = images.map_batches(
            DetectorActor,
            fn_constructor_kwargs={
                "package_files": ray.put(package.to_files()),
                "batch_size": batch_size,
                "constants": constants,
                "schema": schema,
            },
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=num_detectors),
            num_cpus=DETECTOR_CPUS,
            num_gpus=1 if has_gpus else None,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )
    yield from detections.iter_batches(batch_size=None, batch_format="pyarrow")
