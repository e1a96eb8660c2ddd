"""Commit results at intervals, in a thread of its own."""

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence
from pipeline.table.rewrite import data_files
from pipeline.table.schema import IS_RETRY

MAX_QUEUED_BYTES = 256 * 2**20
REPLACING_SHARE = 0.1
"""The share of the time that replacing rows may take. It reads the whole table, at 6 µs per row."""
REPLACING_S_PER_ROW = 20e-6
"""The seconds per row of the table that a run announces for a replacement, more than it takes.

Other runs may see no commit from it during this time.
"""


class Committer:
    """Gathers rows and commits them once per interval, under the run's fence. Leaving the `with` block commits the rest.

    Rows are visible and durable once they are committed; a crash loses the rows since the last commit. An interval without a
    commit ends with a heartbeat, so that a committer without rows keeps its hold on the table.

    Rows that replace others are committed less often if the table is large. The first are committed at once, the last at the
    end. In between, replacing takes a tenth of the time.

    Args:
        table: the table to which rows are committed.
        fence: the run's hold on the table.
        interval_s: the seconds between commits.
        took: a listener, called with the seconds that each commit took.

    Attributes:
        commit_s: the seconds that commits took so far.
    """

    def __init__(
        self, table: ResultTable, fence: Fence, interval_s: float, took: Callable[[float], None] = lambda seconds: None
    ) -> None:
        self._table = table
        self._fence = fence
        self._interval_s = interval_s
        self._took = took
        self._rows: queue.SimpleQueue[pa.Table | None] = queue.SimpleQueue()  # a signal's handler may put into it
        self._is_stopped = False
        self._queued_bytes = 0
        self._retried: list[pa.Table] = []
        self._replace_at_s = 0.0
        self.commit_s = 0.0
        self._space = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)

    def __enter__(self) -> "Committer":
        self._thread.start()
        return self

    def put(self, rows: pa.Table) -> None:
        """Queue rows to be committed. Wait while too many bytes are not committed yet.

        Args:
            rows: rows with the table's columns, and `IS_RETRY`.

        Raises:
            Exception: the error that an earlier commit raised.
            KeyboardInterrupt: the committer was stopped.
        """
        if self._is_stopped:
            raise KeyboardInterrupt
        with self._space:
            self._space.wait_for(lambda: self._queued_bytes < MAX_QUEUED_BYTES or self._error is not None)
            if self._error is not None:
                raise self._error
            self._queued_bytes += rows.nbytes
        self._rows.put(rows)

    def stop(self) -> None:
        """Let the queued rows be committed at once, and accept no more. Does not wait, so that a signal's handler can call it."""
        self._is_stopped = True
        self._rows.put(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _work(self) -> None:
        try:
            while self._commit_once():
                pass
        except BaseException as error:
            with self._space:
                self._error = error
                self._space.notify_all()

    def _commit_once(self) -> bool:
        """Gather rows for one interval, until the end, or until half the space is full, and commit them. Return False at the end."""
        due = time.monotonic() + self._interval_s
        gathered: list[pa.Table] = []
        num_bytes, is_open = 0, True
        while is_open and num_bytes < MAX_QUEUED_BYTES // 2:
            try:
                rows = self._rows.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                break
            if rows is None:
                is_open = False
            else:
                gathered.append(rows)
                num_bytes += rows.nbytes
        self._commit(gathered, is_last=not is_open)
        with self._space:
            self._queued_bytes -= num_bytes
            self._space.notify_all()
        return is_open

    def _commit(self, gathered: list[pa.Table], is_last: bool) -> None:
        """Commit new rows, and if it is due, those that replace others. Send a heartbeat if neither was committed."""
        began_s = time.monotonic()
        fresh = [rows for block in gathered if (rows := self._without_retried(block))]
        is_full = sum(rows.nbytes for rows in self._retried) > MAX_QUEUED_BYTES // 4
        is_due = is_last or is_full or began_s >= self._replace_at_s
        if fresh:
            self._fence.commit(lambda properties: self._table.append(pa.concat_tables(fresh), properties))
        if self._retried and is_due:
            self._replace(pa.concat_tables(self._retried))
            self._retried.clear()
        elif not fresh:
            if not is_last:
                self._fence.heartbeat()
            return
        seconds = time.monotonic() - began_s
        self.commit_s += seconds
        self._took(seconds)

    def _without_retried(self, block: pa.Table) -> pa.Table:
        """Put the rows that replace others aside, and return the other ones. A block without such rows is not copied."""
        if not pc.any(block[IS_RETRY]).as_py():
            return block
        self._retried.append(block.filter(block[IS_RETRY]))
        return block.filter(pc.invert(block[IS_RETRY]))

    def _replace(self, rows: pa.Table) -> None:
        """Commit rows in place of their old ones, and set the time at which to do so next."""
        num_rows = sum(file.num_rows for file in data_files(self._table))
        if (promised_s := REPLACING_S_PER_ROW * num_rows) > self._interval_s:
            self._fence.heartbeat(promised_s)
        began_s = time.monotonic()
        self._fence.commit(lambda properties: self._table.replace(rows, properties))
        ended_s = time.monotonic()
        self._replace_at_s = ended_s + (ended_s - began_s) * (1 / REPLACING_SHARE - 1)
