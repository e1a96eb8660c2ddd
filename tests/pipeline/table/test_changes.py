"""The rows that came after a version of the table, whatever was committed since."""

import os

import pytest

from jobs.__main__ import cli
from pipeline.errors import SettingError, SsdBatchError
from pipeline.table.delta import ResultTable
from pipeline.table.maintain import maintain
from pipeline.table.query import query
from pipeline.table.settings import MaintainSettings


@pytest.fixture
def table(tmp_path, new_table, rows) -> ResultTable:
    """Version 1 has a, b and the failure of c."""
    return new_table(tmp_path / "table", rows.ok("a"), rows.ok("b"), rows.failed("c", "fetch"))


def uris(table: ResultTable, since: int, view: str = "images") -> list[str]:
    with query(table, f"SELECT uri FROM {view} ORDER BY uri", since_version=since) as relation:
        return [uri for (uri,) in relation.fetchall()]


def test_rows_that_were_appended(table, rows):
    assert uris(table, 0) == ["a", "b", "c"]
    assert uris(table, 1) == []
    table.append(rows.table(rows.ok("d", **rows.boxes((1, "cat", 0.5, 1, 2, 3, 4)))))
    table.append(rows.table(rows.failed("e", "fetch")))
    assert uris(table, 1) == ["d", "e"]
    assert uris(table, 2) == ["e"]
    assert (uris(table, 1, "detections"), uris(table, 1, "failures"), uris(table, 2, "detections")) == (
        ["d"],
        ["e"],
        [],
    )


def test_a_row_that_was_replaced_is_new_and_those_in_its_file_are_not(table, rows):
    """The failure that was tried again. a and b are in the file that was rewritten."""
    table.replace(rows.table(rows.ok("c", run_id="r2")))
    assert table.delta.version() == 2
    assert uris(table, 1) == ["c"]
    assert uris(table, 0) == ["a", "b", "c"]


def test_a_compaction_changes_nothing(table, rows):
    table.append(rows.table(rows.ok("d")))
    version = table.delta.version()
    assert maintain(MaintainSettings(table=table.url)).compacted_files == 2
    assert (uris(table, version), uris(table, 1)) == ([], ["d"])


def test_rows_that_were_deleted_are_not_there(table, rows):
    table.append(rows.table(rows.ok("/d"), rows.ok("/e")))
    assert maintain(MaintainSettings(table=table.url, delete_uri=("/d",))).deleted_rows == 1
    assert uris(table, 1) == ["/e"]


def test_of_an_image_that_changed_the_new_version_is_there(table, rows):
    table.append(rows.table(rows.ok("a", etag="v2", run_id="r2")))
    with query(table, "SELECT uri, etag FROM images", since_version=1) as relation:
        assert relation.fetchall() == [("a", "v2")]


def test_versions_that_are_not_there(table, rows):
    with pytest.raises(SettingError, match=r"since_version: 7 is not there yet: table .* is at version 1"):
        uris(table, 7)
    table.replace(rows.table(rows.ok("c", run_id="r2")))
    os.remove(f"{table.url}/_delta_log/{1:020}.json")
    with pytest.raises(SettingError, match=r"no longer knows version 1; 0 gives all rows"):
        uris(table, 1)


def test_records_of_runs_need_no_files(table, rows):
    (old,) = table.data_files()
    table.replace(rows.table(rows.ok("c", run_id="r2")))
    os.remove(old)
    with query(table, "SELECT count(*) FROM runs", since_version=1) as relation:
        assert relation.fetchall() == [(0,)]


def test_files_of_an_old_version_that_are_gone(table, rows):
    (old,) = table.data_files()
    table.replace(rows.table(rows.ok("c", run_id="r2")))
    os.remove(old)
    with pytest.raises(SsdBatchError, match="maintain deletes what an old version had: since_version 0 gives all rows"):
        uris(table, 1)
    assert uris(table, 0) == ["a", "b", "c"]


def test_the_command_says_what_to_give_the_next_time(table, rows, capsys, caplog):
    caplog.set_level("INFO")
    table.append(rows.table(rows.ok("d")))
    command = ["query", "--table", table.url, "SELECT uri FROM images", "--format", "csv"]
    cli([*command, "--since-version", "1"], standalone_mode=False)
    assert capsys.readouterr().out.split() == ["uri", "d"]
    assert "read version 2 of the table; the next time, give --since-version 2" in caplog.text
