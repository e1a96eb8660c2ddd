import json
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import OvertakenError
from pipeline.table import query as query_module
from pipeline.table import run_records as runs_module
from pipeline.table.delta import ResultTable
from pipeline.table.query import query
from pipeline.table.run_records import RUNS, RunRecord, delete_records, fold_records, last_complete, recorded, run_files


def runs(table: ResultTable, columns: str) -> list[tuple]:
    with query(ResultTable(table.url), f"SELECT {columns} FROM runs ORDER BY run_id") as relation:
        return relation.fetchall()


def end_with(table: ResultTable, run_id: str, error: BaseException) -> None:
    with recorded(table, RunRecord(run_id=run_id)):
        raise error


def test_a_run_is_recorded_when_it_starts_and_when_it_ends(tmp_path, new_table):
    table = new_table(tmp_path / "table")
    assert runs(table, "*") == []
    with recorded(table, RunRecord(run_id="r1", run_date=date(2026, 1, 2), settings="{}")) as record:
        assert runs(table, "run_id, run_date, outcome, ended_at, ok") == [
            ("r1", date(2026, 1, 2), "running", None, None)
        ]
        record.ok = 3
    assert runs(table, "run_id, outcome, ended_at >= started_at, ok, error") == [("r1", "done", True, 3, None)]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("of the run"), "failed"),
        (OvertakenError("of the run"), "overtaken"),
        (KeyboardInterrupt("of the run"), "stopped"),
    ],
)
def test_how_a_run_ended_is_recorded(error, outcome, tmp_path, new_table):
    table = new_table(tmp_path / "table")
    with pytest.raises(type(error)):
        end_with(table, "r1", error)
    assert runs(table, "outcome, error, ended_at IS NOT NULL") == [(outcome, "of the run", True)]


def end(table: ResultTable, *run_ids: str, **known: object) -> None:
    for run_id in run_ids:
        with recorded(table, RunRecord(run_id=run_id, **known)):
            pass


def test_the_last_run_that_came_to_its_end_is_named(tmp_path, new_table, rows):
    table = new_table(tmp_path / "table")
    assert last_complete(table) is None
    end(table, "r1", run_date=date(2026, 1, 2), model_digest="m1", listed=3, already_done=1, ok=2, failed=0)
    told = json.loads((tmp_path / "table/_LAST_COMPLETE").read_text())
    assert told == last_complete(table)
    assert told | {"run_id": "r1", "run_date": "2026-01-02", "listed": 3, "ok": 2, "table_version": 0} == told
    assert datetime.fromisoformat(told["started_at"]) <= datetime.fromisoformat(told["ended_at"]) <= datetime.now(UTC)
    with pytest.raises(ZeroDivisionError):
        end_with(table, "r2", ZeroDivisionError())
    assert last_complete(table) == told
    table.append(rows.table(rows.ok("a")))
    end(table, "r3")
    assert last_complete(table)["run_id"] == "r3"
    (tmp_path / "table/_LAST_COMPLETE").write_text(json.dumps(told | {"run_id": "later", "table_version": 9}))
    end(table, "r4")
    assert last_complete(table)["run_id"] == "later"


def test_a_sample_is_not_waited_for(tmp_path, new_table):
    table = new_table(tmp_path / "table")
    with recorded(table, RunRecord(run_id="r1"), is_whole=False):
        pass
    assert runs(table, "outcome") == [("done",)]
    assert last_complete(table) is None


def test_records_that_have_their_end_are_folded(tmp_path, new_table, monkeypatch):
    monkeypatch.setattr(runs_module, "MAX_FILES", 2)
    table = new_table(tmp_path / "table")
    end(table, "r1", "r2", ok=1)
    assert fold_records(table) == 0
    with recorded(table, RunRecord(run_id="r3")):
        assert fold_records(table) == 2
        names = sorted(Path(name).name for name in run_files(table))
        assert (len(names), names[1]) == (2, "r3.parquet")
    end(table, "r4")
    assert runs(table, "run_id, outcome, ok") == [(f"r{n}", "done", 1 if n < 3 else None) for n in (1, 2, 3, 4)]
    assert fold_records(table) == 3
    assert runs(table, "run_id") == [("r1",), ("r2",), ("r3",), ("r4",)]


def test_folding_that_is_killed_leaves_each_record_once(tmp_path, new_table, monkeypatch):
    monkeypatch.setattr(runs_module, "MAX_FILES", 1)
    table = new_table(tmp_path / "table")
    end(table, "r1", "r2")
    with monkeypatch.context() as killed:
        killed.setattr(runs_module, "_delete_all", lambda _: None)
        fold_records(table)
    assert (len(run_files(table)), runs(table, "run_id")) == (3, [("r1",), ("r2",)])
    fold_records(table)
    assert (len(run_files(table)), runs(table, "run_id")) == (1, [("r1",), ("r2",)])


def test_records_before_a_date_are_deleted(tmp_path, new_table, monkeypatch):
    monkeypatch.setattr(runs_module, "MAX_FILES", 1)
    table = new_table(tmp_path / "table")
    end(table, "r1", run_date=date(2026, 1, 1))
    end(table, "r2", "undated")
    end(table, "r3", run_date=date(2026, 1, 3))
    fold_records(table)
    end(table, "r4", run_date=date(2026, 1, 1))
    assert delete_records(table, date(2026, 1, 2), dry_run=True) == 2
    assert delete_records(table, date(2026, 1, 2)) == 2
    assert runs(table, "run_id") == [("r2",), ("r3",), ("undated",)]


def test_records_of_other_versions(tmp_path, new_table, monkeypatch):
    """One that lacks a column, and one that has another beside."""
    monkeypatch.setattr(runs_module, "MAX_FILES", 1)
    table = new_table(tmp_path / "table")
    older = [field for field in RUNS if field.name not in ("engine", "skipped", "start_up_s", "cost")]
    folder = tmp_path / "table/_ssd_batch/runs"
    folder.mkdir(parents=True)
    row = {"run_id": "r1", "outcome": "done", "ended_at": datetime(2026, 1, 2, tzinfo=UTC)}
    pq.write_table(pa.Table.from_pylist([row], schema=pa.schema(older)), folder / "r1.parquet")
    assert runs(table, "run_id, engine, start_up_s, cost") == [("r1", None, None, None)]
    pq.write_table(pa.Table.from_pylist([row | {"run_id": "r2", "price": 1.5}]), folder / "r2.parquet")
    assert runs(table, "run_id, engine") == [("r1", None), ("r2", None)]
    assert fold_records(table) == 2
    assert runs(table, "run_id, engine") == [("r1", None), ("r2", None)]
    (folded,) = run_files(table)
    assert pq.read_table(folded).sort_by("run_id")["price"].to_pylist() == [None, 1.5]


def test_a_record_that_is_being_written_is_not_read(tmp_path, new_table):
    table = new_table(tmp_path / "table")
    end(table, "r1")
    (tmp_path / "table/_ssd_batch/runs/r2.parquet.0123").write_bytes(b"PAR1")
    assert runs(table, "run_id") == [("r1",)]


def test_what_a_power_failure_left_of_a_file_is_left_out_and_named(tmp_path, new_table, rows, monkeypatch, caplog):
    """The last complete run is then not known, until the next one."""
    table = new_table(tmp_path / "table", rows.ok("a"))
    end(table, "r1", "r3")
    for name in ("_ssd_batch/runs/r2.parquet", "_LAST_COMPLETE"):
        Path(table.url, name).write_bytes(b"")
    content = bytearray(Path(table.url, "_ssd_batch/runs/r1.parquet").read_bytes())
    content[4:516] = bytes(512)
    Path(table.url, "_ssd_batch/runs/r0.parquet").write_bytes(content)
    assert runs(table, "run_id, outcome") == [("r1", "done"), ("r3", "done")]
    assert last_complete(table) is None
    assert [name in caplog.text for name in ("runs/r2.parquet is damaged", "_LAST_COMPLETE is damaged")] == [True, True]
    monkeypatch.setattr(runs_module, "MAX_FILES", 1)
    assert fold_records(table) == 2
    end(table, "r4")
    assert last_complete(table)["run_id"] == "r4"


def test_a_record_that_is_folded_while_it_is_asked_for_is_there(tmp_path, new_table, monkeypatch):
    table = new_table(tmp_path / "table")
    end(table, "r1", "r2")
    listed = run_files(table)
    monkeypatch.setattr(runs_module, "MAX_FILES", 1)
    assert fold_records(table) == 2
    monkeypatch.setattr(query_module, "run_files", lambda table: listed)
    assert runs(table, "run_id, outcome") == [("r1", "done"), ("r2", "done")]


@pytest.mark.s3
def test_records_on_s3(s3, new_table):
    table = new_table(f"s3://{s3.bucket()}/table")
    for run_id in ("r1", "r2"):
        with recorded(table, RunRecord(run_id=run_id)):
            pass
    assert runs(table, "run_id, outcome") == [("r1", "done"), ("r2", "done")]
    with query(table, "FROM runs") as relation:
        assert relation.columns == RUNS.names
    assert last_complete(table)["run_id"] == "r2"
