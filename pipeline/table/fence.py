"""Hold a table: one run at a time commits to it, and a run that was overtaken commits no more.

The holder is recorded in the table's own log. Each commit of a run carries a Delta transaction, epoch · 2²⁴ + sequence. Its
metadata names the run, host, process and interval.

Delta refuses a commit whose writer has not seen a later transaction of the same application. So if two runs take the table at
once, one wins. A run that slept through its successor's commit is stopped.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError

from pipeline.errors import HeldError, OvertakenError
from pipeline.storage import store
from pipeline.storage.table_files import LOG_FOLDER, PARTITION
from pipeline.table.delta import ResultTable

logger = logging.getLogger(__name__)

APPLICATION, METADATA = "ssd-batch", "ssd_batch"
EPOCH = 1 << 24
WATCHED_INTERVALS = 3
"""The number of intervals without a commit after which a holder is treated as dead or stuck.

A live holder commits once per interval, even if only a heartbeat.
"""
SHORTEST_WATCH_S = 10.0
"""The minimum seconds for which a holder is watched, however short its interval is: a machine may be busy.

On S3, it is also watched for as long as it may repeat a commit.
"""
COMMIT_ATTEMPTS = 10
LOG_DEPTH = 100
"""The number of commits searched for the holder's name. Others, such as an engine that compacts, may have committed since."""


@dataclass(frozen=True)
class Holder:
    """The process that made the last commit of a run. `machine`, `pid` and `pid_started` distinguish it from all others."""

    run_id: str
    host: str
    pid: int
    interval_s: float
    is_released: bool = False
    machine: str = ""
    """The machine of the process, see `_machine`; empty if an older version made the commit."""
    pid_started: str = ""
    """The start of the process, in ticks since the boot; empty if an older version made the commit."""

    @classmethod
    def from_json(cls, text: str) -> "Holder":
        """Make a holder from a commit's metadata. Fields that only a newer version knows are left out."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in names})

    @classmethod
    def of_this_process(cls, run_id: str, interval_s: float) -> "Holder":
        """Make the holder that stands for this process."""
        pid = os.getpid()
        return cls(run_id, socket.gethostname(), pid, interval_s, machine=_machine(), pid_started=_started(pid))

    def __str__(self) -> str:
        return f"run {self.run_id} (host {self.host}, process {self.pid})"

    @property
    def is_gone(self) -> bool:
        """Is the holder a process that this one could see, and that has ended?

        The names of hosts can't answer this, because containers and clones share them.
        """
        if self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return _started(self.pid) != self.pid_started  # Another process has its number now.


@cache
def _machine() -> str:
    """Return what identifies this boot of this machine, and the namespace of its process numbers.

    On systems other than Linux, return the number of the network card.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():x}"


def _started(pid: int) -> str:
    """Return the time at which a process was started, in ticks since the boot; empty if it is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


class Fence:
    """A run's hold on a table. Several threads may commit, one at a time.

    Args:
        table: the table, which must exist before it is held.
        run_id: the run that holds the table.
        interval_s: the seconds within which the run promises to commit.
    """

    def __init__(self, table: ResultTable, run_id: str, interval_s: float) -> None:
        self.run_id = run_id
        self._table = table
        self._me = Holder.of_this_process(run_id, interval_s)
        self._version = 0
        self._lock = threading.Lock()

    def wait_until_free(self, take_over: bool = False) -> int | None:
        """Wait until nobody holds the table.

        It is free if it was released, if its holder is gone, or if its holder does not commit while it is watched.

        Returns:
            The last transaction of a run in the table as it was just read; None if there is none.

        Raises:
            HeldError: the holder is alive.
        """
        version = self._last_version()
        holder = self._last_holder()
        if version is None or take_over or (holder and (holder.is_released or holder.is_gone)):
            return version
        interval_s = holder.interval_s if holder else self._me.interval_s
        watched_s = max(WATCHED_INTERVALS * interval_s, interval_s + self._longest_commit_s)
        logger.info("the table is held by %s; waiting %.0f s to see whether it is alive", holder or "a run", watched_s)
        deadline = time.monotonic() + watched_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, interval_s / 4))
            if (now := self._last_version()) != version:
                holder = self._last_holder()
                if holder and holder.is_released:
                    return now
                raise HeldError(f"table {self._table.url!r} is held by {holder or 'a run'}, which is alive; let it end")
        logger.info("%s shows no progress: taking over", holder or "the holder")
        return version

    @property
    def _longest_commit_s(self) -> float:
        """Return the seconds that one commit of a live holder may take."""
        return max(SHORTEST_WATCH_S, store.table_patience_s(self._table.url))

    @contextmanager
    def held(self, take_over: bool = False) -> Iterator[None]:
        """Hold the table for a `with` block, and release it at the end, also after an error."""
        self.hold(take_over)
        try:
            yield
        except OvertakenError:
            raise
        except BaseException:
            self.release()
            raise
        self.release()

    def hold(self, take_over: bool = False) -> None:
        """Take the table, with the next epoch.

        Raises:
            HeldError: the holder is alive, or another run was faster. A holder that is overtaken may commit once more meanwhile.
        """
        for number in range(COMMIT_ATTEMPTS):
            free = self.wait_until_free(take_over) or 0
            version = (free // EPOCH + 1) * EPOCH
            try:  # to the table as it was read when free: if another run has taken it since, this fails
                self._write_nothing(_properties(version, self._me))
                break
            except CommitFailedError as error:
                # As in `_commit_alone`, it may have landed. But here two runs may want the same transaction, so the run's id decides.
                last, holder = self._last_version() or 0, self._last_holder()
                if last == version and holder is not None and holder.run_id == self.run_id:
                    break
                is_overtaken = take_over and last // EPOCH == free // EPOCH  # the live run has just made a commit
                if not is_overtaken or number + 1 == COMMIT_ATTEMPTS:
                    raise HeldError(f"table {self._table.url!r} was just taken by {holder or 'another run'}") from error
        self._version = version

    def commit(self, write: Callable[[CommitProperties], None]) -> None:
        """Commit as the holder.

        Args:
            write: a function that makes one commit to the table as it is then, with the properties that it is given.

        Raises:
            OvertakenError: another run holds the table now; nothing was committed.
        """
        self._commit(write, self._me)

    def heartbeat(self, interval_s: float | None = None) -> None:
        """Make an empty commit, to show that the run is alive; raises as `commit`.

        Args:
            interval_s: the seconds until the next commit, if that takes longer than the run's interval.
        """
        self._commit(self._write_nothing, replace(self._me, interval_s=max(interval_s or 0, self._me.interval_s)))

    def release(self) -> None:
        """Release the table. If another run has taken it over, that run keeps it."""
        try:
            self._commit(self._write_nothing, replace(self._me, is_released=True))
        except OvertakenError as error:
            logger.info("%s", error)

    def _commit(self, write: Callable[[CommitProperties], None], holder: Holder) -> None:
        with self._lock:
            self._commit_alone(write, holder)

    def _commit_alone(self, write: Callable[[CommitProperties], None], holder: Holder) -> None:
        following = self._version + 1
        for _ in range(COMMIT_ATTEMPTS):
            if self._last_version() != self._version:
                by = self._last_holder() or "another run"
                raise OvertakenError(f"table {self._table.url!r} was taken over by {by}: this run commits no more")
            try:
                write(_properties(following, holder))
            except CommitFailedError as error:
                # A commit that landed though its answer was lost is refused when it is tried again: it is in the log.
                if self._last_version() != following:
                    failed = error
                    continue
            self._version = following
            return
        raise failed

    def _last_version(self) -> int | None:
        """Return the last transaction of a run, as the log says now; None if there is none."""
        found: int | None = self._table.refreshed().transaction_version(APPLICATION)
        return found

    def _last_holder(self) -> Holder | None:
        return last_holder(self._table)

    def _write_nothing(self, properties: CommitProperties) -> None:
        delta = self._table.delta
        delta.create_write_transaction(
            [], "append", delta.schema(), partition_by=[PARTITION], commit_properties=properties
        )


def last_holder(table: ResultTable) -> Holder | None:
    """Return the holder that made the last transaction of the table as it was last read; None if that commit is too far back in the log.

    The log is read here, as delta-rs finds no history where a folder's name has a question mark or a hash.
    """
    version: int = table.delta.version()
    for number in range(version, max(-1, version - LOG_DEPTH), -1):
        try:
            actions = store.read(f"{table.url}/{LOG_FOLDER}/{number:020}.json").splitlines()
        except FileNotFoundError:
            return None
        for action in map(json.loads, actions):
            if METADATA in (info := action.get("commitInfo", {})):
                return Holder.from_json(info[METADATA])
    return None


def _properties(version: int, holder: Holder) -> CommitProperties:
    metadata: dict[str, Any] = {METADATA: json.dumps(asdict(holder))}
    return CommitProperties(custom_metadata=metadata, app_transactions=[Transaction(APPLICATION, version)])
