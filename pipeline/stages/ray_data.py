"""A Ray cluster that works on images: the stages as one Ray Data expression.

On a cluster with GPUs, detectors run on the GPUs, and tasks on the cores fetch and decode. On a cluster without GPUs, each core has
an actor that runs both stages, so that neither stage waits for the cores of the other.
"""

import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from model.package_files import PackageFiles
from pipeline.cluster.capacity import (
    DETECTOR_CPUS,
    WORKER_CPUS,
    cluster_cores,
    num_detectors_that_fit,
    num_gpus,
    num_nodes,
    wait_until_they_fit,
)
from pipeline.errors import reason
from pipeline.settings import DetectionSettings
from pipeline.stages.ray_alone import OneActor
from pipeline.stages.ray_workers import DetectorActor, WorkerActor, decode, row_of
from pipeline.stages.runner import MAX_LARGE_BLOCK_ROWS, RunObserver, Spread, Stages, batch_size_on, spread_over

if TYPE_CHECKING:
    from pipeline.stages.detect import Block

logger = logging.getLogger(__name__)

DECODE_CPUS = 0.4
"""The share of a core that Ray books for a task that reads and decodes."""
MAX_PIXEL_BYTES = 64 << 20
"""The most bytes of a block's pixels where tasks send them to detectors. A task holds them three times."""
MAX_RETRIES = 1
"""The number of retries of a task or a call whose process dies. Ray's own default is to retry for ever. Without retries, Ray gives up the
blocks that a lost node held."""
CALLS_AT_ONCE = 2
"""The number of concurrent calls of an actor. One call computes while the other reads, or prepares batches for the GPU."""


@contextmanager
def ray_cluster(settings: DetectionSettings, stages: Stages) -> Iterator["RayCluster"]:
    """Use the Ray cluster that was entered.

    Raises:
        SettingError: the cluster has no room for the detectors.
        PackageError: no network can be made of the package.
    """
    import torch

    from model.engine import open_engine
    from model.package import ModelPackage

    package = ModelPackage.from_files(stages.package_files)
    package.network()
    wait_until_they_fit(settings)
    if package.quantized:
        open_engine(package, torch.device("cuda" if num_gpus() else "cpu"), stages.precision, stages.num_images)
    yield RayCluster(settings, stages)


class RayCluster:
    """See `pipeline.stages.runner.Runner`.

    Args:
        settings: the number of detectors, and the seconds to wait for nodes.
        stages: the stages that the cluster runs.
    """

    name = "ray"

    def __init__(self, settings: DetectionSettings, stages: Stages) -> None:
        self._settings = settings
        self._stages = [ray.put(stages)]
        self._image_bytes = 3 * PackageFiles(stages.package_files).record.architecture.image_size_px ** 2

    def num_nodes(self) -> int:
        """See `Runner`."""
        return num_nodes()

    def spread(self, num_images: int) -> Spread:
        """See `Runner`. The settings give the number of detectors; 0 means as many as the GPUs take, or one per core without GPUs."""
        settings = self._settings
        places = num_gpus() * settings.detectors_per_gpu or cluster_cores()
        num_detectors = settings.num_detectors or min(places, num_detectors_that_fit(settings))
        max_block_rows = MAX_PIXEL_BYTES // self._image_bytes if num_gpus() else MAX_LARGE_BLOCK_ROWS
        return spread_over(num_detectors, settings.min_detectors, num_images, max_block_rows)

    def observer(self, table: str) -> RunObserver:
        """Return an observer that publishes metrics. Ray's agent on this node serves them."""
        from pipeline.stages.prometheus import RunMetrics

        return RunMetrics(table, batch_size_on("cuda" if num_gpus() else "cpu", self._settings.batch_size))

    def num_alone(self, spread: Spread) -> int:
        """See `Runner`. Nodes may have been lost since the pass began. An image that runs alone has a whole GPU."""
        num_fitting = num_detectors_that_fit(self._settings)
        return max(1, min(spread.min_detectors, num_fitting, num_gpus() or num_fitting))

    def one_at_a_time(self) -> OneActor:
        """See `Runner`."""
        return OneActor(self._stages, self._settings.node_wait_s)

    def run(self, blocks: "Sequence[Block]", spread: Spread) -> Iterator[pa.Table]:
        """See `Runner`. Nodes may have been lost since the last pass; without room for a detector, Ray would wait for ever."""
        if not blocks:  # another run has done all that was planned
            return
        if not (num_fitting := num_detectors_that_fit(self._settings)):
            logger.error("the pass over all images stopped: of %s nodes none has room for a detector", num_nodes())
            return
        DataContext.get_current().max_errored_blocks = spread.max_lost
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # It prints a traceback for each lost block.
        block_rows = max(stop - start for start, stop in blocks)
        spread = replace(spread, block_rows=block_rows, min_detectors=min(spread.min_detectors, num_fitting))
        try:
            detections = self._through(_dataset(blocks), spread)
            yield from detections.iter_batches(batch_size=None, batch_format="pyarrow")
        except RayError as error:
            logger.error("the pass over all images stopped: %s", reason(error))
        gc.collect()  # The actors of a pass that stopped live as long as its executor, which is part of a cycle.

    def _through(self, blocks: Dataset, spread: Spread) -> Dataset:
        options: dict[str, Any] = {
            "batch_format": "pyarrow",
            "fn_constructor_kwargs": {"stages": self._stages},
            # Ray waits for ever once all its actors are dead for good. Before that, more blocks than allowed are lost.
            "max_restarts": (1 + MAX_RETRIES) * (1 + spread.max_lost),
            "max_task_retries": MAX_RETRIES,
        }
        compute = ActorPoolStrategy(
            min_size=spread.min_detectors, max_size=spread.num_detectors, max_concurrent_calls_per_actor=CALLS_AT_ONCE,
            enable_true_multi_threading=True,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RayDeprecationWarning)  # Ray 2.60 has no other place for these options yet.
            if not num_gpus():
                return blocks.map_batches(
                    WorkerActor, batch_size=None, compute=compute, num_cpus=WORKER_CPUS, **options
                )
            images = blocks.map_batches(
                partial(decode, stages=self._stages), batch_size=None, batch_format="pyarrow", num_cpus=DECODE_CPUS,
                max_retries=MAX_RETRIES,
            )  # fmt: skip
            # Both calls of map_batches pass one block per call. Here it needs a number: with GPUs, Ray refuses None.
            return images.map_batches(
                DetectorActor, batch_size=spread.block_rows, compute=compute,
                num_cpus=DETECTOR_CPUS, num_gpus=1 / self._settings.detectors_per_gpu, **options,
            )  # fmt: skip


def _dataset(blocks: "Sequence[Block]") -> Dataset:
    """Make a data set with one row per block: the number of the block's first planned row, and the number after its last.

    Ray's `from_arrow` would run a task per block to count its rows, and keep 45 KB for each.
    """
    dataset: Dataset = ray.data.from_blocks([row_of(block) for block in blocks])
    return dataset
