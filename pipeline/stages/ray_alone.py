"""An image that runs alone on a Ray cluster, in a process of its own."""

from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError

from pipeline.cluster.capacity import ALONE_CPUS, num_gpus, num_nodes
from pipeline.errors import SsdBatchError, reason
from pipeline.stages.isolate import NotStartedError, ProcessDiedError
from pipeline.stages.ray_workers import DetectorActor, StagesRef, decode, row_of

ALONE_WAIT_S = 600.0
"""The seconds to wait for an image that runs alone. An image whose storage fails takes a third of that time. If an image takes longer, the
cluster has no room for it, or its node hangs."""


class OneActor:
    """A task that decodes, and an actor that detects until it dies; see `pipeline.stages.isolate.OneAtATime`.

    Args:
        stages: the stages that the task and the actor run.
        node_wait_s: the seconds to wait for the actor to start and for each result, if more than `ALONE_WAIT_S`.
    """

    def __init__(self, stages: StagesRef, node_wait_s: float) -> None:
        self._stages, self._wait_s = stages, max(node_wait_s, ALONE_WAIT_S)
        self._decode: Any = ray.remote(max_retries=0, num_cpus=ALONE_CPUS)(decode)
        options: dict[str, Any] = {"num_cpus": ALONE_CPUS, "num_gpus": 1 if num_gpus() else None}
        self._start = ray.remote(max_restarts=0, **options)(DetectorActor).remote
        self._detector: Any = None
        self._decoding: Any = None

    def decode(self, number: int) -> pa.Table:
        """See `OneAtATime`."""
        self._decoding = self._decode.remote(row_of((number, number + 1)), self._stages)
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
