"""What did not come back: images whose block was lost with a process, each run again by itself.

Ray tells which block a dying process took along, never which image was at fault. So each of them is run in processes
that hold nothing else; one whose process dies again is the culprit, and becomes a failure row `ProcessKilled`.
"""

import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from pipeline import storage
from pipeline.detect import DetectorActor, finish
from pipeline.errors import SsdBatchError, reason
from pipeline.fetch import failure

PROCESS_KILLED = "ProcessKilled"


class Returned:
    """The keys (uri, etag) that came back, as hashes of eight bytes: ten million fit on the driver."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, rows: pa.Table) -> None:
        """Note the keys of these rows."""
        self._hashes.extend(_hashes(rows))

    def missing(self, work_url: str) -> Iterator[pa.Table]:
        """The planned rows that did not come back, each as a table of its own.

        A missing key that shares its hash with another is passed over, and reconciliation finds it; of runs over ten
        million keys, one in 400,000 has such a pair at all.

        Args:
            work_url: Parquet file of all that was planned.
        """
        returned = np.sort(np.frombuffer(self._hashes, np.int64))
        fs, path = storage.filesystem(work_url)
        with fs.open(path) as file:
            for batch in pq.ParquetFile(file).iter_batches():
                hashes = np.fromiter(_hashes(batch), np.int64, batch.num_rows)
                is_missing = np.searchsorted(returned, hashes, "left") == np.searchsorted(returned, hashes, "right")
                rows = pa.Table.from_batches([batch.filter(pa.array(is_missing))])
                yield from (rows.slice(index, 1) for index in range(rows.num_rows))


def _hashes(rows: pa.Table | pa.RecordBatch) -> Iterator[int]:
    return map(hash, zip(rows["uri"].to_pylist(), rows["etag"].to_pylist(), strict=True))


class Alone(threading.local):
    """Both stages for one image at a time, in processes that hold no other; each thread has a detector of its own.

    Args:
        decode: the first stage.
        decode_options: Ray's options for its task.
        detector: arguments of `DetectorActor`.
        detector_options: Ray's options for the actor.
    """

    def __init__(
        self,
        decode: Callable[[pa.Table], pa.Table],
        decode_options: dict[str, Any],
        detector: dict[str, Any],
        detector_options: dict[str, Any],
    ) -> None:
        self._decode: Any = ray.remote(max_retries=0, **decode_options)(lambda row: decode(row))
        self._start = ray.remote(max_restarts=0, **detector_options)(DetectorActor).remote
        self._arguments = detector
        self._detector: Any = None

    def __call__(self, row: pa.Table) -> pa.Table:
        """A planned row to a row of the table, whatever dies.

        Raises:
            SsdBatchError: the detector can't start.
        """
        try:
            image = ray.get(self._decode.remote(row))
        except RayError as error:
            # The stage is fetch, not decode: another run may have more memory, so this failure may pass.
            return self._failed(row, "fetch", error)
        detector = self._detector or self._started()
        try:
            return ray.get(detector.__call__.remote(image))
        except RayError as error:
            self._detector = None
            return self._failed(image.drop_columns(["pixels"]), "detect", error)

    def _started(self) -> Any:
        self._detector = self._start(**self._arguments)
        try:
            ray.get(self._detector.__ray_ready__.remote())
        except RayError as error:
            raise SsdBatchError(f"the detector can't start: {reason(error)}") from error
        return self._detector

    def _failed(self, row: pa.Table, stage: str, error: RayError) -> pa.Table:
        if isinstance(error, RayTaskError):
            columns = failure(stage, error.cause)
        else:
            columns = {"error_stage": stage, "error_type": PROCESS_KILLED, "error_message": _cause(error)}
        return finish([row.to_pylist()[0] | columns], self._arguments["constants"], self._arguments["schema"])


def _cause(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):
        return f"Ray killed the process that held this image alone, for lack of memory: {reason(error)}"
    return "the process that held this image alone died: it crashed, or was killed, for lack of memory perhaps"


def run_alone(
    rows: Iterable[pa.Table], alone: Callable[[pa.Table], pa.Table], num_at_once: int, max_killed: int
) -> Iterator[pa.Table]:
    """Run rows one by one, some at once.

    Args:
        rows: planned rows, each as a table.
        alone: both stages.
        num_at_once: threads, each with a detector.
        max_killed: where so many have killed their process, images are not to blame.

    Yields:
        One row of the table for each, in the same order.

    Raises:
        SsdBatchError: more were killed than allowed.
    """
    num_killed = 0
    threads = ThreadPoolExecutor(num_at_once, thread_name_prefix="alone")
    try:
        for result in threads.map(_InTurn(alone, num_at_once), rows):
            yield result
            num_killed += _is_killed(result)
            if num_killed > max_killed:
                raise SsdBatchError(
                    f"{num_killed:,} images killed the process that held them alone, the last one in stage "
                    f"{result['error_stage'][0]} ({result['error_message'][0]}): so many mean too little memory, or a "
                    "broken installation. They are failures in the table; run again when it is mended"
                )
    finally:
        threads.shutdown(cancel_futures=True)


class _InTurn:
    """Runs rows beside each other; one whose process was killed once more, with nothing beside it.

    Where memory runs out, Ray kills more than the process that took it.
    """

    def __init__(self, alone: Callable[[pa.Table], pa.Table], num_at_once: int) -> None:
        self._alone, self._num_at_once = alone, num_at_once
        self._places, self._quiet = threading.Semaphore(num_at_once), threading.Lock()

    def __call__(self, row: pa.Table) -> pa.Table:
        with self._places:
            result = self._alone(row)
        if self._num_at_once == 1 or not _is_killed(result):
            return result
        with self._quiet:
            for _ in range(self._num_at_once):
                self._places.acquire()
            try:
                return self._alone(row)
            finally:
                self._places.release(self._num_at_once)


def _is_killed(result: pa.Table) -> bool:
    return bool(result["error_type"][0].as_py() == PROCESS_KILLED)
