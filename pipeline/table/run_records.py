"""The record of each run: a small file in the table's work folder, written when the run starts and when it ends, however it ends."""

import errno
import io
import json
import logging
import socket
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OvertakenError, reason
from pipeline.storage import store
from pipeline.storage.table_files import WORK_FOLDER
from pipeline.table.delta import ResultTable

logger = logging.getLogger(__name__)


@dataclass
class RunRecord:
    """The facts that are known of a run: a row of the view `runs`. Unknown facts are null."""

    run_id: str
    run_date: date | None = None
    outcome: str = "running"
    """The outcome: running, done, failed, overtaken or stopped. A killed run stays at running, because its end was never written."""
    error: str | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    lag_s: float | None = None
    """The seconds from the time at which the run was due to its start; null without the setting due_at."""
    wall_s: float | None = None
    images_per_s: float | None = None
    listed: int | None = None
    skipped: int | None = None
    already_done: int | None = None
    planned: int | None = None
    ok: int | None = None
    failed: int | None = None
    start_up_s: float | None = None
    """The seconds to the first results."""
    stream_s: float | None = None
    """The seconds from the first results to the last ones."""
    stream_images_per_s: float | None = None
    fetch_s: float | None = None
    """The seconds that decoders waited for bytes, summed over the images: for a pool, more than `stream_s`."""
    decode_s: float | None = None
    """The seconds of decoding and resizing, summed over the images."""
    detect_s: float | None = None
    """The seconds in detectors, summed over the images."""
    commit_s: float | None = None
    detector_busy_share: float | None = None
    """The share of the detectors' time, from the first results on, in which they detected."""
    num_detectors: int | None = None
    """The number of detectors that worked."""
    peak_images_per_s: float | None = None
    """The images per second that a detector's processor could multiply at most, by a short matrix product when it started."""
    num_nodes: int | None = None
    """The highest number of nodes at once."""
    bytes_read: int | None = None
    num_retries: int | None = None
    cost: float | None = None
    """The cost, in the unit of the setting price_per_node_hour; null without it."""
    cost_per_thousand: float | None = None
    """The cost per thousand images."""
    model_name: str | None = None
    model_digest: str | None = None
    engine: str | None = None
    """The library that computed the network, its version, and the precision."""
    runner: str | None = None
    """The runner: local (processes of one machine) or ray; null if nothing was detected."""
    host: str = field(default_factory=socket.gethostname)
    settings: str | None = None
    """The run's settings, as JSON."""

    def count(self, listed: int, skipped: int, already_done: int, planned: int) -> None:
        """Set the counts that are known before the run does anything."""
        self.listed = listed
        self.skipped = skipped
        self.already_done = already_done
        self.planned = planned


ARROW_TYPES = {
    str: pa.string(), date: pa.date32(), datetime: pa.timestamp("us", "UTC"), float: pa.float64(), int: pa.int64()
}  # fmt: skip


def _arrow_type(annotation: Any) -> pa.DataType:
    """Return the column type of a field, which may be optional."""
    (kind,) = set(get_args(annotation) or (annotation,)) - {type(None)}
    return ARROW_TYPES[kind]


RUNS = pa.schema([(name, _arrow_type(annotation)) for name, annotation in get_type_hints(RunRecord).items()])
"""The columns of the view `runs`: the fields of `RunRecord`."""

LAST_COMPLETE = "_LAST_COMPLETE"
"""The file next to the table's folders that has the last run that did all it listed, as JSON, for jobs that wait for it."""
COMPLETE = (
    "run_id", "run_date", "started_at", "ended_at", "model_name", "model_digest", "listed", "already_done", "ok", "failed",
)  # fmt: skip
"""The fields of a run's record that `LAST_COMPLETE` has, next to the table's version."""
MAX_FILES = 50
"""The number of files above which records are folded into one file, because `runs` opens each."""
NUM_READ_THREADS = 32


@contextmanager
def recorded(table: ResultTable, record: RunRecord, is_whole: bool = True) -> Iterator[RunRecord]:
    """Record a run for the time of a `with` block.

    Args:
        table: the table, which must exist.
        record: the facts that are known now.
        is_whole: False for a sample, which must not be published as the last complete run.

    Yields:
        The record, to be completed. It is written again at the end.
    """
    _write(table, record)
    try:
        yield record
    except BaseException as error:
        record.outcome = (
            "overtaken"
            if isinstance(error, OvertakenError)
            else "failed"
            if isinstance(error, Exception)
            else "stopped"
        )
        record.error, record.ended_at = reason(error), datetime.now(UTC)
        _write_in_little_room(table, record)
        raise
    record.outcome, record.ended_at = "done", datetime.now(UTC)
    _write(table, record)
    if is_whole:
        _write_last_complete(table, record)


def _write(table: ResultTable, record: RunRecord) -> None:
    _write_file(table, record.run_id, pa.Table.from_pylist([asdict(record)], schema=RUNS))


def _write_in_little_room(table: ResultTable, record: RunRecord) -> None:
    """Write the end of a run that failed. On a full disk, delete the record of its beginning to make room.

    An error of the store is not raised here, because the error that ended the run matters more than its record.
    """
    try:
        _write(table, record)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            with suppress(OSError):
                store.delete(f"{_folder(table)}{record.run_id}.parquet")
                _write(table, record)
        else:
            logger.warning("the end of run %s can't be recorded: %s", record.run_id, reason(error))


def _write_file(table: ResultTable, name: str, records: pa.Table) -> None:
    content = io.BytesIO()
    pq.write_table(records, content)
    store.write(f"{_folder(table)}{name}.parquet", content.getvalue())


def _write_last_complete(table: ResultTable, record: RunRecord) -> None:
    """Write `_LAST_COMPLETE`. A run that saw an earlier version of the table does not replace one that saw a later version."""
    version = table.refreshed().version()
    last = last_complete(table)
    if last and last["table_version"] > version:
        return
    content = {name: getattr(record, name) for name in COMPLETE} | {"table_version": version}
    store.write(f"{table.url}/{LAST_COMPLETE}", json.dumps(content, default=lambda time: time.isoformat()).encode())


def last_complete(table: ResultTable) -> dict[str, Any] | None:
    """Return the content of `_LAST_COMPLETE`; None if no run has come to its end yet."""
    url = f"{table.url}/{LAST_COMPLETE}"
    try:
        content: dict[str, Any] = json.loads(store.read(url))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is damaged, and left out: %s", url, reason(error))
        return None
    return content


def _folder(table: ResultTable) -> str:
    return f"{table.url}/{WORK_FOLDER}/runs/"


def run_files(table: ResultTable) -> list[str]:
    """Return the URLs of the files that have the records."""
    try:
        names = [entry.uri for page in store.walk(_folder(table)) for entry in page]
    except FileNotFoundError:
        return []
    return [name for name in names if name.endswith(".parquet")]  # a file that is being written has another name


def fold_records(table: ResultTable) -> int:
    """Put the records of all runs that have ended into one file, if there are more than `MAX_FILES` files.

    A record that has its end never changes again. A file is deleted only after its records are stored in another one. So a call
    that is killed, or that runs at the same time as another, leaves each record once or twice. The view `runs` shows it once.

    Returns:
        The number of files that became one.
    """
    if len(names := run_files(table)) <= MAX_FILES:
        return 0
    ended = {name: records for name, records in _read_all(names).items() if not records["ended_at"].null_count}
    if len(ended) < 2:
        return 0
    _write_file(table, f"folded-{uuid.uuid4().hex}", pa.concat_tables(ended.values(), promote_options="permissive"))
    _delete_all(ended)
    return len(ended)


def delete_records(table: ResultTable, before: date, dry_run: bool = False) -> int:
    """Delete the records of runs whose run_date is before a date.

    Returns:
        The number of these records.
    """
    num_deleted = 0
    for name, records in _read_all(run_files(table)).items():
        kept = records.filter(pc.fill_null(pc.greater_equal(records["run_date"], before), True))
        num_deleted += records.num_rows - kept.num_rows
        if dry_run or kept.num_rows == records.num_rows:
            continue
        if kept.num_rows:
            _write_file(table, f"folded-{uuid.uuid4().hex}", kept)
        _delete_all([name])
    return num_deleted


def _read_all(names: list[str]) -> dict[str, pa.Table]:
    with ThreadPoolExecutor(NUM_READ_THREADS) as threads:
        found = zip(names, threads.map(_read, names), strict=True)
        return {name: records for name, records in found if records is not None}


def _read(name: str) -> pa.Table | None:
    """Return the records in a file; None if another process has folded it since it was listed, or if it is damaged."""
    try:
        content = io.BytesIO(store.read(name))
    except FileNotFoundError:
        return None
    try:
        return pq.read_table(content)
    except (pa.ArrowException, OSError) as error:
        logger.warning("the record %s is damaged, and left out: %s", name, reason(error))
        return None


def read_records(table: ResultTable) -> pa.Table:
    """Return the records of all runs. Those that are folded meanwhile, or damaged, are left out."""
    return pa.concat_tables([RUNS.empty_table(), *_read_all(run_files(table)).values()], promote_options="permissive")


def _delete_all(names: Iterable[str]) -> None:
    for name in names:
        with suppress(FileNotFoundError):  # another process has folded it, too
            store.delete(name)
