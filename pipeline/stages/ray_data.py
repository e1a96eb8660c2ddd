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
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError
from ray.util.annotations import RayDeprecationWarning

from model.package_files import PackageFiles
from pipeline.cluster.capacity import (
    ALONE_CPUS,
    DETECTOR_CPUS,
    WORKER_CPUS,
    cluster_cores,
    num_detectors_that_fit,
    num_gpus,
    num_nodes,
    wait_until_they_fit,
)
from pipeline.errors import SsdBatchError, reason
from pipeline.settings import DetectionSettings
from pipeline.stages.isolate import NotStartedError, ProcessDiedError
from pipeline.stages.runner import MAX_LARGE_BLOCK_ROWS, RunObserver, Spread, Stages, spread_over

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
ALONE_WAIT_S = 600.0
"""The seconds to wait for an image that runs alone. An image whose storage fails takes a third of that time. If an image takes longer, the
cluster has no room for it, or its node hangs."""
CALLS_AT_ONCE = 2
"""The number of concurrent calls of an actor that reads, decodes and detects. One call computes while the other reads."""

StagesRef = list[Any]
"""The reference to the stages in the object store, in a list. Ray does not resolve a reference in a list."""


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
        """See `Runner`. The settings give the number of detectors; 0 means one per GPU, or one per core without GPUs."""
        settings = self._settings
        num_detectors = settings.num_detectors or min(num_gpus() or cluster_cores(), num_detectors_that_fit())
        max_block_rows = MAX_PIXEL_BYTES // self._image_bytes if num_gpus() else MAX_LARGE_BLOCK_ROWS
        return spread_over(num_detectors, settings.min_detectors, num_images, max_block_rows)

    def observer(self, table: str, batch_size: int) -> RunObserver:
        """Return an observer that publishes metrics. Ray's agent on this node serves them."""
        from pipeline.stages.prometheus import RunMetrics

        return RunMetrics(table, batch_size)

    def num_alone(self, spread: Spread) -> int:
        """See `Runner`. Nodes may have been lost since the pass began."""
        return max(1, min(spread.min_detectors, num_detectors_that_fit()))

    def one_at_a_time(self) -> "OneActor":
        """See `Runner`."""
        return OneActor(self._stages, max(self._settings.node_wait_s, ALONE_WAIT_S))

    def run(self, blocks: "Sequence[Block]", spread: Spread) -> Iterator[pa.Table]:
        """See `Runner`. Nodes may have been lost since the last pass; without room for a detector, Ray would wait for ever."""
        if not (num_fitting := num_detectors_that_fit()):
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
        pool: dict[str, Any] = {"min_size": spread.min_detectors, "max_size": spread.num_detectors}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RayDeprecationWarning)  # Ray 2.60 has no other place for these options yet.
            if not num_gpus():
                compute = ActorPoolStrategy(
                    **pool, max_concurrent_calls_per_actor=CALLS_AT_ONCE, enable_true_multi_threading=True
                )
                return blocks.map_batches(
                    WorkerActor, batch_size=None, compute=compute, num_cpus=WORKER_CPUS, **options
                )
            images = blocks.map_batches(
                partial(decode, stages=self._stages), batch_size=None, batch_format="pyarrow", num_cpus=DECODE_CPUS,
                max_retries=MAX_RETRIES,
            )  # fmt: skip
            # Both calls of map_batches pass one block per call. Here it needs a number: with GPUs, Ray refuses None.
            return images.map_batches(
                DetectorActor, batch_size=spread.block_rows, compute=ActorPoolStrategy(**pool),
                num_cpus=DETECTOR_CPUS, num_gpus=1, **options,
            )  # fmt: skip


def _dataset(blocks: "Sequence[Block]") -> Dataset:
    """Make a data set with one row per block: the number of the block's first planned row, and the number after its last.

    Ray's `from_arrow` would run a task per block to count its rows, and keep 45 KB for each.
    """
    dataset: Dataset = ray.data.from_blocks([_block(*block) for block in blocks])
    return dataset


def _block(start: int, stop: int) -> pa.Table:
    return pa.table({"start": [start], "stop": [stop]})


@lru_cache(1)
def _stages_of(reference: Any) -> Stages:
    """Return the stages of a reference. The last ones are cached: a process that runs many tasks keeps what it has opened."""
    stages: Stages = ray.get(reference)
    return stages


def decode(block: Any, stages: StagesRef) -> Any:
    """Run the first stage for one block, as a task."""
    from pipeline.stages.detect import decode_block

    return decode_block(_stages_of(stages[0]), _numbers(block))


def _numbers(block: pa.Table) -> tuple[int, int]:
    return block["start"][0].as_py(), block["stop"][0].as_py()


def _actor_name() -> str:
    return str(ray.get_runtime_context().get_actor_id())


class DetectorActor:
    """The second stage, as an actor: one model on one GPU, or on one core."""

    def __init__(self, stages: StagesRef) -> None:
        from pipeline.stages.detect import DetectStage

        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self._detect = DetectStage(_stages_of(stages[0]), device, _actor_name())

    def __call__(self, images: pa.Table) -> pa.Table:
        """Turn rows with pixels, or with an error already, into rows of the table."""
        from pipeline.stages.detect import detect_images

        return detect_images(self._detect, images)


class WorkerActor:
    """An actor that runs both stages: one model on one core."""

    def __init__(self, stages: StagesRef) -> None:
        from pipeline.stages.detect import Worker

        self._worker = Worker(_stages_of(stages[0]), _actor_name())

    def __call__(self, block: pa.Table) -> pa.Table:
        """Turn a block, given by the numbers of its planned rows, into rows of the table."""
        return self._worker(_numbers(block))


class OneActor:
    """A task that decodes, and an actor that detects until it dies; see `pipeline.stages.isolate.OneAtATime`.

    Args:
        stages: the stages that the task and the actor run.
        wait_s: the seconds to wait for the actor to start, and for each result.
    """

    def __init__(self, stages: StagesRef, wait_s: float) -> None:
        self._stages, self._wait_s = stages, wait_s
        self._decode: Any = ray.remote(max_retries=0, num_cpus=ALONE_CPUS)(decode)
        options: dict[str, Any] = {"num_cpus": ALONE_CPUS, "num_gpus": 1 if num_gpus() else None}
        self._start = ray.remote(max_restarts=0, **options)(DetectorActor).remote
        self._detector: Any = None
        self._decoding: Any = None

    def decode(self, number: int) -> pa.Table:
        """See `OneAtATime`."""
        self._decoding = self._decode.remote(_block(number, number + 1), self._stages)
        try:
            return self._got(self._decoding)
        except RayError as error:
            raise _cause(error) from error

    def detect(self, image: pa.Table) -> pa.Table:
        """See `OneAtATime`."""
        detector = self._detector or self._started()
        try:
            return self._got(detector.__call__.remote(image))
        except RayError as error:
            self._detector = None
            raise _cause(error) from error

    def close(self) -> None:
        """See `OneAtATime`."""
        if self._decoding:
            ray.cancel(self._decoding, force=True)
        if self._detector:
            ray.kill(self._detector)

    def _started(self) -> Any:
        self._detector = self._start(self._stages)
        try:
            self._got(self._detector.__ray_ready__.remote())
        except RayError as error:
            self._detector = None
            raise NotStartedError(f"the detector can't start: {reason(error)}") from error
        return self._detector

    def _got(self, reference: Any) -> Any:
        """Wait for the value of a reference.

        Raises:
            SsdBatchError: the value does not come in time.
        """
        try:
            return ray.get(reference, timeout=self._wait_s)
        except GetTimeoutError as error:
            raise SsdBatchError(
                f"an image that runs alone did not come back within {self._wait_s:.0f} s: of {num_nodes()} nodes none has "
                "room for it, or its node hangs; run again when the cluster is mended"
            ) from error


def _cause(error: RayError) -> Exception:
    if isinstance(error, RayTaskError):
        cause: Exception = error.cause
        return cause
    if isinstance(error, OutOfMemoryError):
        return ProcessDiedError(
            f"Ray killed the process that held this image alone, for lack of memory: {reason(error)}"
        )
    return ProcessDiedError(
        "the process that held this image alone died: it crashed, or was killed, for lack of memory perhaps"
    )
