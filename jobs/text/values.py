"""The results of queries, as text for other programs."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TextIO

import pyarrow as pa


def write_json(batches: pa.RecordBatchReader, stream: TextIO) -> None:
    """Write one JSON array with one object per row, on one line."""
    is_ascii = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
    rows = (json.dumps(plain(row), ensure_ascii=is_ascii) for row in _rows(batches))
    stream.write("[")
    for index, row in enumerate(rows):
        stream.write(f", {row}" if index else row)
    stream.write("]\n")


def write_csv(batches: pa.RecordBatchReader, stream: TextIO) -> None:
    """Write a header and one line per row; lists and structs become JSON, nulls become empty."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(distinct(batches.schema.names))
    for row in _rows(batches):
        values = plain(row).values()
        writer.writerow(
            json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value for value in values
        )


def _rows(batches: pa.RecordBatchReader) -> Iterator[dict[str, Any]]:
    """Yield each row as its values by column name."""
    names = distinct(batches.schema.names)
    for batch in batches:
        yield from batch.rename_columns(names).to_pylist(maps_as_pydicts="lossy")


def distinct(names: Sequence[str]) -> list[str]:
    """Return names without duplicates: a repeated name gets a number at its end, as DuckDB gives it in a table."""
    found: list[str] = []
    for name in names:
        numbered = (name, *(f"{name}_{number}" for number in range(1, len(names) + 1)))
        found.append(
            next(
                candidate
                for candidate in numbered
                if candidate not in found and (candidate == name or candidate not in names)
            )
        )
    return found


def plain(value: Any) -> Any:
    """Return a value as JSON has it.

    Sums become numbers, times and intervals ISO 8601, bytes hexadecimal. NaN and infinity become null, and a map
    becomes an object.
    """
    if isinstance(value, dict):
        return {_key(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, pa.MonthDayNano):
        return _duration(value)
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _key(value: Any) -> str:
    """Return a map's key, which may be of any type, as text."""
    found = plain(value)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _duration(value: pa.MonthDayNano) -> str:
    """Return an interval in the form of ISO 8601."""
    seconds = Decimal(value.nanoseconds) / 10**9
    parts = [f"{value.months}M" * bool(value.months), f"{value.days}D" * bool(value.days)]
    time_of_day = f"T{seconds.normalize():f}S" if seconds or not any(parts) else ""
    return f"P{''.join(parts)}{time_of_day}"
