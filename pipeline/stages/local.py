"""The processes of this machine, one per core, each with a detector. Each is a pool of one process, from the standard library.

A process that dies breaks only its own pool, and costs the block that it held. torch is imported once, by the server that forks the
processes, so that a new process starts in a moment.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.machine import local_cores
from pipeline.settings import DetectionSettings
from pipeline.stages.isolate import NotStartedError, ProcessDiedError
from pipeline.stages.process import Process, decode_here, detect_here, run_here
from pipeline.stages.runner import RunObserver, Spread, Stages, spread_over
from pipeline.stages.server import ensure_running

if TYPE_CHECKING:
    from pipeline.stages.detect import Block

logger = logging.getLogger(__name__)


@contextmanager
def local_processes(settings: DetectionSettings, stages: Stages, num_rows: int) -> Iterator["LocalProcesses"]:
    """Start the processes, at most one per row. They end with the context.

    Raises:
        SettingError: a GPU is required, or more detectors are set than there are cores.
        PackageError: no network can be made of the package.
    """
    if settings.require_gpu:
        raise SettingError(
            "require_gpu: this machine has no GPU; give --address of a cluster that has, or leave it out"
        )
    num_processes, cores = settings.num_detectors or local_cores(), local_cores()
    if num_processes > cores:
        raise SettingError(
            f"num_detectors: {num_processes} are more than the {cores} cores of this machine; give {cores} at most, or 0 for all"
        )
    runner = LocalProcesses(stages, min(num_processes, num_rows))
    try:
        runner.start()
        yield runner
    finally:
        runner.close()


class LocalProcesses:
    """See `pipeline.stages.runner.Runner`.

    Args:
        stages: the stages that the processes run.
        num_processes: the most processes at once.
    """

    name = "local"

    def __init__(self, stages: Stages, num_processes: int) -> None:
        self._stages, self._num_processes = stages, num_processes
        self._processes: list[Process] = []
        self._unused: list[Process] = []
        self._is_closed = False

    def start(self) -> None:
        """Start the processes of the first pass, and wait for one of them."""
        ensure_running()
        self._unused = [self.new_process() for _ in range(self._num_processes)]
        self._unused[0].opened()

    def new_process(self) -> Process:
        """Start another process, which ends with this runner at the latest."""
        if self._is_closed:
            raise SsdBatchError("the run has ended")
        self._processes.append(Process(self._stages))
        return self._processes[-1]

    def _take(self, num_processes: int) -> list[Process]:
        """Return the processes of a pass: those that wait for the first one, or new ones."""
        processes, self._unused = self._unused, []
        return processes[:num_processes] or [self.new_process() for _ in range(num_processes)]

    def end(self, process: Process) -> None:
        """End one of the processes, unless another thread does so."""
        try:
            self._processes.remove(process)
        except ValueError:
            return
        process.end()

    def close(self) -> None:
        """End all processes."""
        self._is_closed = True
        for process in list(self._processes):
            self.end(process)

    def num_nodes(self) -> int:
        """Return 1: this machine."""
        return 1

    def spread(self, num_images: int) -> Spread:
        """See `Runner`; all detectors start at once."""
        return spread_over(self._num_processes, None, num_images)

    def observer(self, table: str) -> RunObserver:
        """Return an observer that publishes nothing: Prometheus reads the metrics of a run from Ray."""
        return RunObserver()

    def num_alone(self, spread: Spread) -> int:
        """See `Runner`. The processes of the pass have ended by then."""
        return spread.min_detectors

    def one_at_a_time(self) -> "OneProcess":
        """See `Runner`."""
        return OneProcess(self)

    def run(self, blocks: "Sequence[Block]", spread: Spread) -> Iterator[pa.Table]:
        """See `Runner`."""
        waiting = deque(blocks)
        lanes = [Lane(self, process) for process in self._take(min(spread.num_detectors, len(blocks)))]
        num_lost = 0
        while True:
            for lane in lanes:
                lane.work_on(waiting, lanes)
            busy = {lane.running: lane for lane in lanes if lane.running}
            if not busy:
                break
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                lane = busy[future]
                lane.running = None
                if error := future.exception():
                    num_lost += 1
                    if num_lost > spread.max_lost:
                        logger.error(
                            "the pass over all images stopped: %s blocks were lost: %s", f"{num_lost:,}", reason(error)
                        )
                        return
                    if isinstance(error, BrokenProcessPool):
                        lane.restart()
                    continue
                lane.work_on(waiting, lanes)  # before the result is yielded, so that the process never waits
                yield future.result()
        for lane in lanes:
            lane.close()


class Lane:
    """The place of one process in the pass. When the process dies, another one takes the place.

    Args:
        runner: makes the other processes.
        process: the process that works here first.
    """

    def __init__(self, runner: LocalProcesses, process: Process) -> None:
        self._runner, self._process = runner, process
        self._following: Block | None = None
        self.running: Future[pa.Table] | None = None

    def work_on(self, waiting: "deque[Block]", lanes: "list[Lane]") -> None:
        """Begin the next block if nothing runs here, and let the process read the block that follows."""
        if self.running:
            return
        block = self._following or (waiting.popleft() if waiting else None) or _taken_from(lanes)
        if block is None:
            return
        self._following = waiting.popleft() if waiting else None
        try:
            self.running = self._process.pool.submit(run_here, block, self._following)
        except BrokenProcessPool:  # The process died while it had nothing to do, so this block is not the cause.
            self.restart()
            self.running = self._process.pool.submit(run_here, block, self._following)

    def give_up_following(self) -> "Block | None":
        """Return the block that would follow, for another lane, and forget it."""
        block, self._following = self._following, None
        return block

    def restart(self) -> None:
        """Put another process in the place of the one that died."""
        self._runner.end(self._process)
        self._process = self._runner.new_process()

    def close(self) -> None:
        """End the process. Images that run alone after the pass have processes of their own."""
        self._runner.end(self._process)


def _taken_from(lanes: list[Lane]) -> "Block | None":
    """Return a block that another lane has only begun to read, or None."""
    return next((block for lane in lanes if (block := lane.give_up_following())), None)


class OneProcess:
    """A process that holds one image, and serves until it dies; see `pipeline.stages.isolate.OneAtATime`."""

    def __init__(self, runner: LocalProcesses) -> None:
        self._runner = runner
        self._process: Process | None = None

    def decode(self, number: int) -> pa.Table:
        """See `OneAtATime`."""
        return self._run(decode_here, number)

    def detect(self, image: pa.Table) -> pa.Table:
        """See `OneAtATime`."""
        return self._run(detect_here, image)

    def close(self) -> None:
        """See `OneAtATime`."""
        if process := self._process:
            self._runner.end(process)

    def _run(self, function: Any, argument: Any) -> pa.Table:
        if self._process is None:
            self._process = self._runner.new_process()
            try:
                self._process.opened()
            except NotStartedError:
                self._runner.end(self._process)
                self._process = None
                raise
        try:
            return self._process.pool.submit(function, argument).result()
        except BrokenProcessPool as error:
            self._runner.end(self._process)
            self._process = None
            raise ProcessDiedError(
                "the process that held this image alone died: it crashed, or was killed, for lack of memory perhaps"
            ) from error
