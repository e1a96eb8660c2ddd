"""The record of each run: a small file beside the table, written when it starts and when it ends, however it ends."""

import errno
import io
import json
import logging
import socket
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OvertakenError, reason
from pipeline.storage import store
from pipeline.storage.table_files import WORK_FOLDER
from pipeline.table.delta import ResultTable

logger = logging.getLogger(__name__)

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("run_date", pa.date32()),
        ("outcome", pa.string()),
        ("error", pa.string()),
        ("started_at", pa.timestamp("us", "UTC")),
        ("ended_at", pa.timestamp("us", "UTC")),
        ("lag_s", pa.float64()),
        ("wall_s", pa.float64()),
        ("images_per_s", pa.float64()),
        ("listed", pa.int64()),
        ("skipped", pa.int64()),
        ("already_done", pa.int64()),
        ("planned", pa.int64()),
        ("ok", pa.int64()),
        ("failed", pa.int64()),
        ("start_up_s", pa.float64()),
        ("stream_s", pa.float64()),
        ("stream_images_per_s", pa.float64()),
        ("fetch_s", pa.float64()),
        ("decode_s", pa.float64()),
        ("detect_s", pa.float64()),
        ("commit_s", pa.float64()),
        ("detector_busy_share", pa.float64()),
        ("num_detectors", pa.int64()),
        ("num_nodes", pa.int64()),
        ("bytes_read", pa.int64()),
        ("num_retries", pa.int64()),
        ("cost", pa.float64()),
        ("cost_per_thousand", pa.float64()),
        ("model_name", pa.string()),
        ("model_digest", pa.string()),
        ("engine", pa.string()),
        ("runner", pa.string()),
        ("host", pa.string()),
        ("settings", pa.string()),
    ]
)
"""outcome: running (or killed: its end was never written), done, failed, overtaken, stopped. settings: as JSON. runner: local
(processes of one machine) or ray; null where nothing was detected. lag_s: from when
it was due to its start, null without the setting due_at.

start_up_s: to the first results; stream_s: from these to the last ones, at stream_images_per_s. fetch_s (decoders waiting for
bytes), decode_s and detect_s: summed over the images, so that of a pool they are more than stream_s; detector_busy_share: of
the detectors' time from the first results on. num_detectors: those that worked; num_nodes: the most at once. cost: in the unit of the setting price_per_node_hour, null without it.
"""

LAST_COMPLETE = "_LAST_COMPLETE"
"""Beside the table's folders: the last run that did all it listed, as JSON, for jobs that wait for it."""
COMPLETE = (
    "run_id", "run_date", "started_at", "ended_at", "model_name", "model_digest", "listed", "already_done", "ok", "failed",
)  # fmt: skip
"""What it has of a run's record, beside the table's version."""
MAX_FILES = 50
"""More records than this are folded into one file: `runs` opens each."""
NUM_READ_THREADS = 32


@contextmanager
def recorded(table: ResultTable, is_whole: bool = True, **known: Any) -> Iterator[dict[str, Any]]:
    """Record a run from here on.

    Args:
        table: it must exist.
        is_whole: nobody waits for what is but a sample: it is not named as the last complete run.
        known: columns of `RUNS`, run_id among them.

    Yields:
        The record, for more columns; it is written again at the end.
    """
    record: dict[str, Any] = {
        "started_at": datetime.now(UTC),
        "outcome": "running",
        "host": socket.gethostname(),
    } | known
    _write(table, record)
    try:
        yield record
    except BaseException as error:
        outcome = (
            "overtaken"
            if isinstance(error, OvertakenError)
            else "failed"
            if isinstance(error, Exception)
            else "stopped"
        )
        _write_in_little_room(
            table, record | {"outcome": outcome, "error": reason(error), "ended_at": datetime.now(UTC)}
        )
        raise
    done = record | {"outcome": "done", "ended_at": datetime.now(UTC)}
    _write(table, done)
    if is_whole:
        _write_last_complete(table, done)


def _write(table: ResultTable, record: dict[str, Any]) -> None:
    _write_file(table, record["run_id"], pa.Table.from_pylist([record], schema=RUNS))


def _write_in_little_room(table: ResultTable, record: dict[str, Any]) -> None:
    """Write the end of a run that failed, on a full disk in the room of its beginning; what ended it matters more than its record."""
    try:
        _write(table, record)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            with suppress(OSError):
                store.delete(f"{_folder(table)}{record['run_id']}.parquet")
                _write(table, record)
        else:
            logger.warning("the end of run %s can't be recorded: %s", record["run_id"], reason(error))


def _write_file(table: ResultTable, name: str, records: pa.Table) -> None:
    content = io.BytesIO()
    pq.write_table(records, content)
    store.write(f"{_folder(table)}{name}.parquet", content.getvalue())


def _write_last_complete(table: ResultTable, record: dict[str, Any]) -> None:
    """A run that saw an earlier version of the table does not replace one that saw a later."""
    version = table.refreshed().version()
    last = last_complete(table)
    if last and last["table_version"] > version:
        return
    content = {name: record.get(name) for name in COMPLETE} | {"table_version": version}
    store.write(f"{table.url}/{LAST_COMPLETE}", json.dumps(content, default=lambda time: time.isoformat()).encode())


def last_complete(table: ResultTable) -> dict[str, Any] | None:
    """What `_LAST_COMPLETE` says; None where no run has come to its end yet."""
    try:
        content: dict[str, Any] = json.loads(store.read(f"{table.url}/{LAST_COMPLETE}"))
    except FileNotFoundError:
        return None
    return content


def _folder(table: ResultTable) -> str:
    return f"{table.url}/{WORK_FOLDER}/runs/"


def run_files(table: ResultTable) -> list[str]:
    """Where the records are."""
    try:
        names = [entry.uri for page in store.walk(_folder(table)) for entry in page]
    except FileNotFoundError:
        return []
    return [name for name in names if name.endswith(".parquet")]  # one that is being written has another name


def fold_records(table: ResultTable) -> int:
    """Put the records of all runs that have ended into one file, where they are many.

    A record that has its end never changes again, and a file is deleted after its records stand in another: killed
    anywhere, or beside another, this leaves each record once or twice, and `runs` shows it once.

    Returns:
        The number of files that became one.
    """
    if len(names := run_files(table)) <= MAX_FILES:
        return 0
    ended = {name: records for name, records in _read_all(names).items() if not records["ended_at"].null_count}
    if len(ended) < 2:
        return 0
    _write_file(table, f"folded-{uuid.uuid4().hex}", pa.concat_tables(ended.values(), promote_options="default"))
    _delete_all(ended)
    return len(ended)


def delete_records(table: ResultTable, before: date, dry_run: bool = False) -> int:
    """Delete the records of runs whose run_date is earlier.

    Returns:
        Their number.
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
    """The records in a file; None where another has folded it since it was listed."""
    try:
        return pq.read_table(io.BytesIO(store.read(name)))
    except FileNotFoundError:
        return None


def _delete_all(names: Iterable[str]) -> None:
    for name in names:
        with suppress(FileNotFoundError):  # another has folded it, too
            store.delete(name)
