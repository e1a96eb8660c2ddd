"""The images that did not come back, because their block was lost with a process. Each of them is run again by itself.

A dying process takes its block along, and nobody knows which image was at fault. So each image of the block is run in processes that
hold nothing else. An image whose process dies again is the culprit, and becomes a failure row `ProcessKilled`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import Any, Protocol

import pyarrow as pa

from pipeline.errors import SsdBatchError
from pipeline.stages.rows import ERROR, failure, finish, numbered

PROCESS_KILLED = "ProcessKilled"


class ProcessDiedError(Exception):
    """The process that held an image alone has died. The message says why, as far as that is known."""


class NotStartedError(SsdBatchError):
    """A detector could not start; the message says why. If memory is short, the reason may be the processes that run next to it."""


class OneAtATime(Protocol):
    """Runs both stages for one image at a time, in processes that hold no other image. Errors of the stages are raised.

    One thread uses an instance; any thread may close it.
    """

    def decode(self, number: int) -> pa.Table:
        """Return the planned row with this number, with its pixels.

        Raises:
            ProcessDiedError: the process that held the image has died.
        """

    def detect(self, image: pa.Table) -> pa.Table:
        """Return the row of the table for an image that `decode` returned.

        Raises:
            ProcessDiedError: the process that held the image has died.
        """

    def close(self) -> None:
        """End the processes of this instance, whatever they are doing."""


class Isolated:
    """Runs images one by one; each thread has processes of its own.

    Args:
        start: makes the processes of a thread.
        read: returns the planned rows [start, stop).
        constants: the columns that all rows of the run share.
        schema: the columns of the rows that come out.
    """

    def __init__(
        self,
        start: Callable[[], OneAtATime],
        read: Callable[[int, int], pa.Table],
        constants: Mapping[str, Any],
        schema: pa.Schema,
    ) -> None:
        self._start, self._read = start, read
        self._constants, self._schema = constants, schema
        self._of_thread = threading.local()
        self._all: list[OneAtATime] = []
        self._is_closed = False

    def __call__(self, number: int) -> pa.Table:
        """Turn the planned row with this number into a row of the table, even if its process dies.

        Raises:
            NotStartedError: the detector can't start.
            SsdBatchError: the instance was closed.
        """
        if self._is_closed:
            raise SsdBatchError("the run has ended")
        if not hasattr(self._of_thread, "stages"):
            self._of_thread.stages = self._start()
            self._all.append(self._of_thread.stages)
        stages: OneAtATime = self._of_thread.stages
        try:
            # The stage is fetch, not decode: another run may have more memory, so this failure may pass.
            stage = "fetch"
            image = stages.decode(number)
            stage = "detect"
            return stages.detect(image)
        except ProcessDiedError as error:
            columns = dict(zip(ERROR, (stage, PROCESS_KILLED, str(error)), strict=True))
        except SsdBatchError:
            raise
        except Exception as error:
            columns = failure(stage, error)
        row = numbered(self._read(number, number + 1), number)
        return finish(row, [columns], self._constants, self._schema)

    def close(self) -> None:
        """End all processes, and start no others."""
        self._is_closed = True
        for stages in self._all:
            stages.close()


def run_alone(
    numbers: Iterable[int], isolated: Callable[[int], pa.Table], num_at_once: int, max_killed: int
) -> Iterator[pa.Table]:
    """Run planned rows each by itself, several at once, and yield the results as they come.

    Args:
        numbers: the numbers of the rows.
        isolated: runs both stages for one row.
        num_at_once: the number of threads, each with processes of its own.
        max_killed: the number of images that may kill their process. If there are more, images are not to blame.

    Yields:
        One row of the table per planned row, in no set order.

    Raises:
        SsdBatchError: more processes were killed than allowed, or there is no room to run the images.
    """
    num_killed = 0
    threads = ThreadPoolExecutor(num_at_once, thread_name_prefix="alone")
    try:
        retry_alone = RetryAlone(isolated, num_at_once)
        for future in as_completed([threads.submit(retry_alone, number) for number in numbers]):
            result = future.result()
            yield result
            num_killed += _is_killed(result)
            if num_killed > max_killed:
                raise SsdBatchError(
                    f"{num_killed:,} images killed the process that held them alone, the last one in stage "
                    f"{result['error_stage'][0]} ({result['error_message'][0]}): this many mean too little memory, or a "
                    "broken installation. They are failures in the table; run again when it is mended"
                )
    finally:
        threads.shutdown(cancel_futures=True)


class RetryAlone:
    """Runs rows concurrently. Retries a row whose process was killed, or whose detector could not start, with no other row running.

    When memory runs out, other processes are killed, too, not only the one that took it.
    """

    def __init__(self, isolated: Callable[[int], pa.Table], num_at_once: int) -> None:
        self._isolated, self._num_at_once = isolated, num_at_once
        self._places, self._quiet = threading.Semaphore(num_at_once), threading.Lock()

    def __call__(self, number: int) -> pa.Table:
        """Turn the planned row with this number into a row of the table."""
        if self._num_at_once == 1:
            return self._isolated(number)
        with self._places, suppress(NotStartedError):
            result = self._isolated(number)
            if not _is_killed(result):
                return result
        with self._quiet:
            for _ in range(self._num_at_once):
                self._places.acquire()
            try:
                return self._isolated(number)
            finally:
                self._places.release(self._num_at_once)


def _is_killed(result: pa.Table) -> bool:
    return bool(result["error_type"][0].as_py() == PROCESS_KILLED)
