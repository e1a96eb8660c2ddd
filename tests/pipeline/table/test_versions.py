"""A note on the latest versions is right for the data files that it was made of, and is used for no others."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from pipeline.table.delta import ResultTable
from pipeline.table.maintain import maintain
from pipeline.table.query import query
from pipeline.table.settings import MaintainSettings
from pipeline.table.versions import note_url, note_versions

SEARCHED = """
    SELECT history.* FROM history LEFT JOIN (
        SELECT uri, model_digest, max_by(etag, (run_id, processed_at)) AS latest,
            max_by(etag, (run_id, processed_at)) FILTER (status = 'ok') AS latest_ok
        FROM history GROUP BY uri, model_digest HAVING count(*) > 1
    ) AS changed ON history.uri = changed.uri AND history.model_digest = changed.model_digest
    WHERE changed.latest IS NULL OR history.etag IN (changed.latest, changed.latest_ok)
"""
"""What `images` has, without any note."""


NUM_SHOWN = 11
"""Rows of `several` that are shown."""


def select(table: ResultTable, sql: str) -> list[tuple]:
    with query(ResultTable(table.url), sql) as relation:
        return relation.fetchall()


def shown(table: ResultTable) -> list[tuple]:
    """The rows of `images`, which are those that a search finds."""
    rows = select(table, "SELECT uri, etag, model_digest, status FROM images ORDER BY ALL")
    assert rows == select(table, f"SELECT uri, etag, model_digest, status FROM ({SEARCHED}) ORDER BY ALL")
    return rows


def joins(table: ResultTable, sql: str = "FROM images") -> bool:
    ((_, plan),) = select(table, f"EXPLAIN {sql}")
    return "join" in plan.lower()


def notes(table: ResultTable) -> set[str]:
    return {path.name for path in Path(table.url, "_ssd_batch").glob("versions-*")}


@pytest.fixture
def several(tmp_path, new_table, rows) -> ResultTable:
    """Versions that follow each other, fail after a success, come back, and are another model's; and an image with one."""
    table = new_table(
        tmp_path / "table",
        rows.ok("changed", run_id="r1"),
        rows.ok("changed", run_id="r2", etag="v2"),
        rows.ok("changed", run_id="r1", model_digest="m2"),
        rows.ok("hidden by nothing", run_id="r1"),
        rows.failed("hidden by nothing", "fetch", run_id="r2", etag="v2"),
        rows.failed("never ok", "fetch", run_id="r1"),
        rows.failed("never ok", "decode", run_id="r2", etag="v2"),
        rows.ok("one"),
    )
    # Other engines may leave nulls, and two rows of one key.
    odd = [rows.ok("null", etag=None), rows.ok("null", run_id="r2"), rows.ok(None), rows.ok(None, etag="v2")]
    table.append(rows.table(*odd, rows.ok("doubled"), rows.ok("doubled")))
    return table


def test_a_note_answers_as_a_search_does(several):
    before = shown(several)
    assert joins(several)
    note_versions(several)
    assert shown(several) == before
    assert len(before) == NUM_SHOWN
    assert {("hidden by nothing", "v1", "m1", "ok"), ("hidden by nothing", "v2", "m1", "failed")} <= set(before)


def test_without_a_second_version_nothing_is_joined(tmp_path, new_table, rows):
    table = new_table(tmp_path / "table", rows.ok("a"), rows.ok("b"), rows.ok("a", model_digest="m2"))
    assert joins(table)
    note_versions(table)
    for view in ("images", "detections", "failures"):
        assert not joins(table, f"FROM {view}")
    assert len(shown(table)) == 3


def test_what_is_noted_is_not_searched(several):
    """A wrong note says so."""
    several.append(several.refreshed().to_pyarrow_table().slice(0, 1))
    note_versions(several)
    (note,) = notes(several)
    path = Path(several.url, "_ssd_batch", note)
    none = pq.read_table(path).slice(0, 0)
    pq.write_table(none, path)
    assert select(several, "SELECT count(*) FROM images") == select(several, "SELECT count(*) FROM history")


def append(table: ResultTable, more: pa.Table) -> None:
    write_deltalake(table.url, more, mode="append", partition_by=["run_date"])


def merge(table: ResultTable, more: pa.Table) -> None:
    (
        table.refreshed()
        .merge(more, "old.uri = new.uri", source_alias="new", target_alias="old")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


def update(table: ResultTable, _: pa.Table) -> None:
    table.refreshed().update({"uri": "'a'"})


def replace(table: ResultTable, more: pa.Table) -> None:
    table.replace(more)


@pytest.mark.parametrize("write", [append, merge, update, replace])
def test_what_others_commit_is_seen_at_once(write, tmp_path, new_table, rows):
    table = new_table(tmp_path / "table", rows.ok("a"), rows.ok("b"))
    note_versions(table)
    write(
        table,
        rows.table(
            rows.ok("a", etag="v2", run_id="r2"), rows.ok("c", run_id="r2"), rows.ok("c", etag="v2", run_id="r3")
        ),
    )
    found = shown(table)
    assert joins(table)
    note_versions(table)
    assert shown(table) == found


def test_a_table_that_is_compacted_deleted_from_or_restored_is_answered(several):
    note_versions(several)
    several.refreshed().optimize.compact()
    assert len(shown(several)) == NUM_SHOWN
    several.refreshed().delete("uri = 'changed' AND etag = 'v2'")
    assert ("changed", "v1", "m1", "ok") in shown(several)
    several.refreshed().restore(2)
    assert ("changed", "v1", "m1", "ok") not in shown(several)
    assert len(notes(several)) == 1


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_damaged_note_is_not_used(content, several):
    before = shown(several)
    note_versions(several)
    (note,) = notes(several)
    Path(several.url, "_ssd_batch", note).write_bytes(content)
    assert shown(several) == before


def test_a_note_that_can_not_be_written_harms_nothing(several, caplog):
    Path(several.url, "_ssd_batch").write_bytes(b"")
    note_versions(several)
    assert "can't be noted" in caplog.text
    assert len(shown(several)) == NUM_SHOWN


def test_an_empty_table_has_no_note(tmp_path, new_table):
    table = new_table(tmp_path / "table")
    note_versions(table)
    assert notes(table) == set()


def test_maintain_makes_the_note_and_deletes_old_ones(several):
    note_versions(several)
    (old,) = notes(several)
    maintain(MaintainSettings(table=several.url))
    (new,) = notes(several) - {old}
    week_ago = (datetime.now(UTC) - timedelta(hours=169)).timestamp()
    for note in (old, new):
        os.utime(Path(several.url, "_ssd_batch", note), (week_ago, week_ago))
    maintain(MaintainSettings(table=several.url))
    assert notes(several) == {new}
    assert note_url(several, several.data_files()).endswith(new)
    assert len(shown(several)) == NUM_SHOWN
