from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from pipeline.table.delta import ResultTable
from pipeline.table.run_records import RunRecord, recorded
from pipeline.table.schema import SCHEMA

FIRST = date(2026, 11, 20)


class Nights:
    """A table with one run per night.

    Args:
        table: the empty table.
        rows: the functions that make rows.
    """

    def __init__(self, table: ResultTable, rows) -> None:
        self.table, self._rows = table, rows
        self.num = 0

    def add(self, *images: tuple[str, list[tuple[str, float]]], failed: int = 0, digest: str = "m1", **columns) -> str:
        """Add a run with images: their camera, and their boxes by class and score; `run_id`."""
        day, run_id = FIRST + timedelta(days=self.num), f"r{self.num:02}"
        self.num += 1
        common = {"run_id": run_id, "run_date": day, "model_digest": digest} | columns
        made = []
        for number, (camera, boxes) in enumerate(images):
            found = (
                self._rows.boxes(*((ord(name[0]), name, score, 1, 2, 11, 12) for name, score in boxes)) if boxes else {}
            )
            made.append(self._rows.ok(f"/{camera}/{run_id}-{number}.jpg", **common, **found) | {"camera": camera})
        for number in range(failed):
            uri = f"/a/{run_id}-broken-{number}.jpg"
            row = self._rows.failed(uri, "fetch", error_message=f"image {number} of '{uri}' is lost", **common)
            made.append(row | {"camera": "a"})
        schema = pa.schema([*SCHEMA, ("camera", pa.string())])
        self.table.append(pa.Table.from_pylist(made, schema=schema))
        started = datetime(day.year, day.month, day.day, 2, tzinfo=UTC)
        record = RunRecord(run_id, day, started_at=started, model_name="tiny", model_digest=digest)
        record.ok, record.failed = len(images), failed
        with recorded(self.table, record):
            pass
        return run_id


@pytest.fixture
def nights(tmp_path, new_table, rows):
    table = new_table(tmp_path / "table")
    table.append(pa.Table.from_pylist([], schema=pa.schema([*SCHEMA])))
    table.add_columns([pa.field("camera", pa.string())], None)
    return Nights(table, rows)
