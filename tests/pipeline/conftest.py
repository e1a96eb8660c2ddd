"""Result rows and tables, small enough to read."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.inputs.manifest import LISTING
from pipeline.table.delta import ResultTable
from pipeline.table.schema import SCHEMA


def make_row(uri: str, **columns: object) -> dict[str, object]:
    """A row as a run writes it: ok and without detections, unless columns say otherwise."""
    row = {
        "uri": uri, "etag": "v1", "size_bytes": 10, "model_name": "tiny", "model_digest": "m1", "run_id": "r1",
        "run_date": date(2026, 1, 2), "processed_at": datetime(2026, 1, 2, 3, tzinfo=UTC), "status": "ok", "num_attempts": 1,
        "width_px": 40, "height_px": 30, "num_detections": 0, "detections": [],
    }  # fmt: skip
    return row | columns


def make_failure(uri: str, stage: str, **columns: object) -> dict[str, object]:
    error = {"status": "failed", "error_stage": stage, "error_type": "OSError", "error_message": "why"}
    nothing = {"width_px": None, "height_px": None, "num_detections": None, "detections": None}
    return make_row(uri, **error, **nothing) | columns


def make_detections(*boxes: tuple[int, str, float, float, float, float, float]) -> dict[str, object]:
    """The columns of a row with boxes (label_id, label, score, xmin, ymin, xmax, ymax)."""
    detections = [
        dict(zip(("label_id", "label", "score", "xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in boxes
    ]
    return {"detections": detections, "num_detections": len(boxes), "max_score": max(box[2] for box in boxes)}


def to_table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


class Clock:
    """Stands for the module `time`; tests move it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, float], Clock]:
    """Give a module a clock of its own."""

    def clock_of(module: ModuleType, now: float) -> Clock:
        clock = Clock(now)
        monkeypatch.setattr(module, "time", clock)
        return clock

    return clock_of


@pytest.fixture(autouse=True)
def pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding sets Pillow's bound for its process, and here that is other tests' process too."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


class Rows:
    """The functions above, for tests: files of tests can't import one another."""

    ok = staticmethod(make_row)
    failed = staticmethod(make_failure)
    boxes = staticmethod(make_detections)
    table = staticmethod(to_table)


@pytest.fixture(scope="session")
def rows() -> Rows:
    return Rows()


@pytest.fixture
def new_table():
    """Make a table at a URL, with rows or empty."""

    def new_table(url: object, *rows: dict[str, object]) -> ResultTable:
        table = ResultTable(str(url))
        table.create()
        if rows:
            table.append(to_table(*rows))
        return table

    return new_table


@pytest.fixture
def listing(tmp_path):
    """Write a listing of (uri, etag), or (uri, etag, last_modified); the file's path."""

    def listing(*entries: tuple[str, str] | tuple[str, str, datetime]) -> Path:
        path = tmp_path / "listing.parquet"
        found = [dict(zip(("uri", "etag", "last_modified"), entry, strict=False), size_bytes=10) for entry in entries]
        pq.write_table(pa.Table.from_pylist(found, schema=LISTING), path)
        return path

    return listing
