"""Folders whose names are those of columns inside: of stages, of DuckDB, of Delta, of SQL."""

import json
from pathlib import Path

import pytest

from pipeline.inference import path_columns
from pipeline.inference.plan import Plan
from pipeline.stages.detect import FOUND
from pipeline.stages.rows import DECODED, PIXELS, ROW
from pipeline.stages.timings import METERS
from tests.e2e.command import ask, infer, jpeg, run

pytestmark = pytest.mark.slow

OURS = {
    *(name.removeprefix(".") for name in (*METERS.names, *DECODED.names, ROW, PIXELS, FOUND)),
    *Plan.__dataclass_fields__,
    "index", "start", "stop", "is_done", "latest", "known", "listed", "judged", "folder", "content", "run_records", "results",
}  # fmt: skip
OTHERS = {
    "filename", "file_row_number", "file_index", "rowid", "hive_partitioning", "column0", "name", "value", "type", "id",
    "_change_type", "_commit_version", "_commit_timestamp", "__index_level_0__", "add", "remove", "partition", "old", "new",
    "select", "from", "where", "order", "group", "table", "end", "case", "null", "true", "all", "user", "date", "unnest",
}  # fmt: skip
NAMES = sorted({*OURS, *OTHERS} - path_columns.TAKEN)


def test_a_name_inside_may_be_a_folders(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_columns, "MAX_COLUMNS", len(NAMES))
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    for number in range(2):
        folder = pictures.joinpath(*(f"{name}=v{number}" for name in NAMES))
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(jpeg(number) if number else b"no picture")
    arguments = ("--input", pictures, "--table", table, "--model", model)
    first_run = infer(*arguments)
    assert [first_run[count] for count in ("listed", "ok", "failed")] == [2, 1, 1]
    columns = ", ".join(f'"{name}"' for name in NAMES)
    views = {"images": [0, 1], "history": [0, 1], "detections": [1], "failures": [0]}
    rows = ask(
        table, " UNION ".join(f"SELECT '{view}' AS view, {columns} FROM {view}" for view in views) + " ORDER BY ALL"
    )
    assert rows == [
        {"view": view} | dict.fromkeys(NAMES, f"v{number}") for view in sorted(views) for number in views[view]
    ]
    again = infer(*arguments, "--dry-run")
    assert (again["already_done"], again["planned"]) == (2, 0)
    code, out, err = run("maintain", "--table", table, "--delete-uri", next(pictures.rglob("*.jpg")), "--json")
    assert (code, json.loads(out)["deleted_rows"]) == (0, 1), err
