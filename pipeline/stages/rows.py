"""The rows that pass between the stages, by columns: planned rows, failures, and rows of the table."""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import reason
from pipeline.stages.timings import READ_METERS
from pipeline.storage import store

ROW = ".row"
"""The column with a row's number in the plan, while the row is worked on.

Columns that are not part of the table begin with a dot. No column from a path has such a name.
"""

PIXELS = ".pixels"
"""The column with an image's pixels, (S, S, 3) uint8 RGB, while the image is worked on. It is null if the image failed."""

IS_FIRST = ".is_first"
"""The column that says whether no earlier attempt at a planned image was counted."""

ERROR = ("error_stage", "error_type", "error_message")

DECODED = pa.schema(
    [
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("error_stage", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        *READ_METERS,
    ]
)
"""The columns that fetch and decode fill, next to the pixels: the image's size or an error, and the measurements."""


class PlanRows:
    """Reads planned rows from a Parquet file, by their numbers.

    An instance can be pickled, and opens the file in the process that uses it.

    Args:
        url: the file, which every process that works on images can read.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._open()

    def _open(self) -> None:
        self._file: pq.ParquetFile | None = None
        self._starts: list[int] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_url": self._url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._url = state["_url"]
        self._open()

    def __call__(self, start: int, stop: int) -> pa.Table:
        """Return the rows [start, stop)."""
        with self._lock:
            if self._file is None:
                fs, path = store.filesystem(self._url)
                self._file = pq.ParquetFile(fs.open(path))
                sizes = (self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups))
                self._starts = list(accumulate(sizes, initial=0))
            first = bisect_right(self._starts, start) - 1
            rows = self._file.read_row_groups(range(first, bisect_left(self._starts, stop)))
        return rows.slice(start - self._starts[first], stop - start)


def failure(stage: str, error: BaseException) -> dict[str, Any]:
    """Return the columns of a row that failed."""
    return dict(zip(ERROR, (stage, type(error).__name__, reason(error)), strict=True))


def finish(
    rows: pa.Table,
    found: Sequence[Mapping[str, Any]],
    constants: Mapping[str, Any],
    schema: pa.Schema,
    **more: pa.Array,
) -> pa.Table:
    """Make rows of the table from planned rows.

    Args:
        rows: the planned rows.
        found: the values that the stages found for each row, by column.
        constants: the columns that all rows of the run share.
        schema: the columns to make. A column without a value is null. `ROW` is kept next to them.
        more: the columns that exist as arrays already.
    """
    is_failed = [columns.get("error_stage") is not None for columns in found]
    shared = {**constants, "processed_at": datetime.now(UTC)}
    arrays = {"status": pa.array(["failed" if failed else "ok" for failed in is_failed]), **more}
    columns = []
    for field in schema:
        if field.name in arrays:
            column = arrays[field.name]
        elif field.name in shared:
            column = pa.repeat(pa.scalar(shared[field.name], field.type), rows.num_rows)
        elif field.name in rows.column_names:
            column = rows[field.name]
        else:
            column = pa.array([columns.get(field.name) for columns in found], field.type)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.table([*columns, rows[ROW]], schema=pa.schema([*schema, (ROW, pa.int64())]))


def numbered(rows: pa.Table, start: int) -> pa.Table:
    """Add the column `ROW` to planned rows; `start` is the number of the first row."""
    return rows.append_column(ROW, pa.array(range(start, start + rows.num_rows), pa.int64()))
