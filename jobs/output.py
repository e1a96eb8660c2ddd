"""Answers of queries as text that other programs read."""

import csv
import json
import math
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TextIO

import pyarrow as pa


def write_json(batches: pa.RecordBatchReader, stream: TextIO) -> None:
    """One JSON array with an object a row, on one line."""
    rows = (json.dumps(plain(row), ensure_ascii=False) for batch in batches for row in batch.to_pylist())
    stream.write("[")
    for index, row in enumerate(rows):
        stream.write(f", {row}" if index else row)
    stream.write("]\n")


def write_csv(batches: pa.RecordBatchReader, stream: TextIO) -> None:
    """A header and a line a row; lists and structs as JSON, nulls as nothing."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(batches.schema.names)
    for batch in batches:
        for row in batch.to_pylist():
            values = plain(row).values()
            writer.writerow(
                json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value for value in values
            )


def plain(value: Any) -> Any:
    """A value as JSON has it: sums are numbers, times ISO 8601, bytes hexadecimal, NaN and infinity null."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | str) else str(value)
