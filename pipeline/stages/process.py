"""A process of the local runner: how it begins and ends, and what runs within it."""

import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import parent_process
from typing import TYPE_CHECKING

import pyarrow as pa

from model.package_files import PackageError
from pipeline.errors import reason
from pipeline.stages.isolate import NotStartedError
from pipeline.stages.runner import Stages
from pipeline.stages.server import CONTEXT, ignore_stops

if TYPE_CHECKING:
    from pipeline.stages.detect import Block, Worker

OOM_SCORE = 500
"""The value of `oom_score_adj` of our workers. When memory runs out, Linux ends a worker before the driver or the user's other programs."""

_worker: "Worker | None" = None


def _begin() -> None:
    """Prepare a new process, before any work: the process must end with the driver, and not before."""
    ignore_stops()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(OOM_SCORE))


def _open(stages: Stages, environment: dict[str, str]) -> int:
    """Make the worker of a new process, within it, and return the process's ID."""
    global _worker
    os.environ.update(environment)  # The server that forks still has the environment in which it was started.
    from pipeline.stages.detect import Worker

    _worker = Worker(stages, str(os.getpid()))
    return os.getpid()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent
    parent.join()
    os._exit(1)


def run_here(block: "Block", following: "Block | None") -> pa.Table:
    """Run a block in this process's worker."""
    assert _worker
    return _worker(block, following)


def decode_here(number: int) -> pa.Table:
    """Fetch and decode one image in this process's worker."""
    assert _worker
    return _worker.decode(number)


def detect_here(image: pa.Table) -> pa.Table:
    """Detect in one image in this process's worker."""
    assert _worker
    return _worker.detect(image)


class Process:
    """A separate process with a worker in it."""

    def __init__(self, stages: Stages) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=CONTEXT, initializer=_begin)
        self._opened: Future[int] = self.pool.submit(_open, stages, dict(os.environ))

    def opened(self) -> None:
        """Wait until the worker can work.

        Raises:
            PackageError: no network can be made of the package.
            NotStartedError: the process dies first, or the worker can't be made.
        """
        try:
            self._opened.result()
        except PackageError:
            raise
        except Exception as error:
            raise NotStartedError(f"a detector can't start in a process of its own: {reason(error)}") from error

    def end(self) -> None:
        """End the process, whatever it is doing, and the thread that serves its pool."""
        with suppress(Exception):
            os.kill(self._opened.result(timeout=0), signal.SIGKILL)
        # Python's own end at exit fails where it meets a thread that is just about to end, so wait for the thread.
        self.pool.shutdown(cancel_futures=True)
