from datetime import date

import pytest

from pipeline.errors import OvertakenError
from pipeline.query import query
from pipeline.runs import RUNS, recorded
from pipeline.table import ResultTable


def runs(table: ResultTable, columns: str) -> list[tuple]:
    with query(ResultTable(table.url), f"SELECT {columns} FROM runs ORDER BY run_id") as relation:
        return relation.fetchall()


def end_with(table: ResultTable, run_id: str, error: BaseException) -> None:
    with recorded(table, run_id=run_id):
        raise error


def test_a_run_is_recorded_when_it_starts_and_when_it_ends(tmp_path, new_table):
    table = new_table(tmp_path / "table")
    assert runs(table, "*") == []
    with recorded(table, run_id="r1", run_date=date(2026, 1, 2), settings="{}") as record:
        assert runs(table, "run_id, run_date, outcome, ended_at, ok") == [
            ("r1", date(2026, 1, 2), "running", None, None)
        ]
        record |= {"ok": 3}
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


@pytest.mark.s3
def test_records_on_s3(s3, new_table):
    table = new_table(f"s3://{s3.bucket()}/table")
    for run_id in ("r1", "r2"):
        with recorded(table, run_id=run_id):
            pass
    assert runs(table, "run_id, outcome") == [("r1", "done"), ("r2", "done")]
    with query(table, "FROM runs") as relation:
        assert relation.columns == RUNS.names
