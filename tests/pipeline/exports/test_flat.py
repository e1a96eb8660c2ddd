import csv
import json
import os
from pathlib import Path

import pyarrow.dataset
import pytest

from pipeline.errors import SettingError
from pipeline.exports import flat
from pipeline.exports.export import export
from pipeline.exports.settings import ExportSettings
from pipeline.table.schema import SCHEMA

COLUMNS = [
    "uri", "etag", "model_name", "model_digest", "run_id", "run_date", "width_px", "height_px",
    "label_id", "label", "score", "xmin", "ymin", "xmax", "ymax",
]  # fmt: skip


def test_parquet(exported, tmp_path):
    assert exported("parquet").rows == 4
    found = pyarrow.dataset.dataset(tmp_path / "out").to_table()
    assert found.column_names == COLUMNS
    assert sorted(found["score"].to_pylist()) == pytest.approx([0.25, 0.5, 0.75, 0.9])
    assert found.schema.field("run_date").type == SCHEMA.field("run_date").type


def test_csv_and_json_lines_have_the_same(exported, tmp_path, table):
    exported("csv")
    with open(tmp_path / "out/part-0.csv", newline="") as file:
        of_csv = list(csv.DictReader(file))
    export(ExportSettings(table=table.url, output=str(tmp_path / "lines"), format="jsonl"))
    of_json = [json.loads(line) for line in (tmp_path / "lines/part-0.jsonl").read_text().splitlines()]
    assert list(of_csv[0]) == list(of_json[0]) == COLUMNS
    assert [{name: str(value) for name, value in row.items()} for row in of_json] == of_csv
    assert sorted(row["xmin"] for row in of_json) == [0, 1, 4.25, 10]
    assert of_json[0]["run_date"] == "2026-01-02"


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_table_without_boxes(kind, tmp_path, new_table):
    table = new_table(tmp_path / "empty")
    done = export(ExportSettings(table=table.url, output=f"file://{tmp_path}/out", format=kind))
    assert (done.rows, done.output, os.listdir(tmp_path / "out")) == (0, f"{tmp_path}/out", [f"part-0.{kind}"])
    if kind != "jsonl":
        assert pyarrow.dataset.dataset(tmp_path / "out", format=kind).to_table().column_names == COLUMNS


def test_files_are_of_bounded_length(monkeypatch, exported, tmp_path):
    monkeypatch.setattr(flat, "BATCH_ROWS", 1)
    monkeypatch.setattr(flat, "MAX_FILE_ROWS", 3)
    assert exported("csv").rows == 4
    lengths = [len(Path(tmp_path, "out", f"part-{number}.csv").read_text().splitlines()) for number in (0, 1)]
    assert lengths == [1 + 3, 1 + 1]
    assert len(os.listdir(tmp_path / "out")) == 2


def test_only_into_a_new_folder(table, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    for name in ("full", "full/x"):
        with pytest.raises(SettingError, match="not empty"):
            export(ExportSettings(table=table.url, output=str(tmp_path / name)))
    assert os.listdir(tmp_path / "full") == ["x"]
    with pytest.raises(SettingError, match="can't be written"):
        export(ExportSettings(table=table.url, output=str(tmp_path / "full/x/deep")))


@pytest.mark.parametrize("place", ["flat", "run_date=2026-01-02/flat", "deep/er/flat"])
def test_nothing_is_exported_into_a_table(place, table):
    """Maintenance would take it for its own."""
    with pytest.raises(SettingError, match=f"would be inside the table '{table.url}'; name a place outside of it"):
        export(ExportSettings(table=table.url, output=f"{table.url}/{place}"))
    assert not Path(table.url, place).exists()
