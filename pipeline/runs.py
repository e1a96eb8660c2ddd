"""The record of each run: a small file beside the table, written when it starts and when it ends, however it ends."""

import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import OvertakenError, reason
from pipeline.table import WORK_FOLDER, ResultTable

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("run_date", pa.date32()),
        ("outcome", pa.string()),
        ("error", pa.string()),
        ("started_at", pa.timestamp("us", "UTC")),
        ("ended_at", pa.timestamp("us", "UTC")),
        ("wall_s", pa.float64()),
        ("images_per_s", pa.float64()),
        ("listed", pa.int64()),
        ("skipped", pa.int64()),
        ("already_done", pa.int64()),
        ("planned", pa.int64()),
        ("ok", pa.int64()),
        ("failed", pa.int64()),
        ("model_name", pa.string()),
        ("model_digest", pa.string()),
        ("engine", pa.string()),
        ("host", pa.string()),
        ("settings", pa.string()),
    ]
)
"""outcome: running (or killed: its end was never written), done, failed, overtaken, stopped. settings: as JSON."""


@contextmanager
def recorded(table: ResultTable, **known: Any) -> Iterator[dict[str, Any]]:
    """Record a run from here on.

    Args:
        table: it must exist.
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
        _write(table, record | {"outcome": outcome, "error": reason(error), "ended_at": datetime.now(UTC)})
        raise
    _write(table, record | {"outcome": "done", "ended_at": datetime.now(UTC)})


def _write(table: ResultTable, record: dict[str, Any]) -> None:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([record], schema=RUNS), content)
    storage.write(f"{_folder(table)}{record['run_id']}.parquet", content.getvalue())


def _folder(table: ResultTable) -> str:
    return f"{table.url}/{WORK_FOLDER}/runs/"


def run_files(table: ResultTable) -> list[str]:
    """Where the records are."""
    try:
        return [entry.uri for page in storage.walk(_folder(table)) for entry in page]
    except FileNotFoundError:
        return []
