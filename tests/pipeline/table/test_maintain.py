import json
import os
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline.errors import HeldError, OvertakenError, SettingError
from pipeline.storage.table_files import WORK_FOLDER
from pipeline.table import maintain as maintain_module
from pipeline.table.delta import REWRITES, ResultTable
from pipeline.table.fence import Fence
from pipeline.table.groups import groups, small_files
from pipeline.table.maintain import maintain
from pipeline.table.query import query
from pipeline.table.rewrite import DataFile, data_files
from pipeline.table.run_records import MAX_FILES, RunRecord, recorded
from pipeline.table.settings import MaintainSettings
from pipeline.table.versions import NOTE_FILE

LONG_AGO = (0, 0)
SECOND, THIRD = date(2026, 1, 2), date(2026, 1, 3)


@pytest.fixture
def table(tmp_path, new_table, rows) -> ResultTable:
    return fill(new_table(tmp_path / "table"), rows)


def fill(table: ResultTable, rows) -> ResultTable:
    """Two days of three files each; of one image there are two versions, and results of two models."""
    for number in range(3):
        table.append(rows.table(rows.ok(f"/in/{number}.jpg")))
        table.append(rows.table(rows.ok(f"/in/{number + 3}.jpg", run_date=THIRD)))
    table.append(rows.table(rows.ok("/in/0.jpg", etag="v2", run_date=THIRD), rows.ok("/in/0.jpg", model_digest="m2")))
    return table


def care(table: ResultTable, **settings: object) -> maintain_module.Maintained:
    return maintain(MaintainSettings(table=table.url, **settings))


def uris(table: ResultTable) -> list[str]:
    with query(ResultTable(table.url), "SELECT uri FROM history ORDER BY 1") as relation:
        return [Path(uri).stem for (uri,) in relation.fetchall()]


def files(url: str) -> set[str]:
    """What lies beside the log, less the note on versions."""
    return {
        str(path.relative_to(url))
        for path in Path(url).rglob("*")
        if path.is_file() and "_delta_log" not in str(path) and not NOTE_FILE.fullmatch(path.name)
    }


def data_file(number: int, size_bytes: int, run_date: str = "2026-01-02") -> DataFile:
    return DataFile(f"{number}", run_date, size_bytes, 1)


def test_small_files_of_a_day_are_grouped():
    found = small_files([data_file(0, 10), data_file(1, 50), data_file(2, 49), data_file(3, 10, "2026-01-03")], 100)
    assert found == [[data_file(0, 10), data_file(2, 49)]]


def test_a_group_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr("pipeline.table.groups.GROUP_TARGETS", 2)
    found = groups([data_file(number, 40) for number in range(6)], 50)
    assert [[file.path for file in group] for group in found] == [["0", "1", "2"], ["3", "4"], ["5"]]


def test_compaction_leaves_a_file_a_day_and_then_nothing_to_do(table):
    before = uris(table)
    done = care(table)
    assert (done.compacted_files, done.num_files, done.left_files) == (8, 2, 0)
    assert uris(table) == before
    version = table.refreshed().version()
    again = care(table)
    assert (again.compacted_files, again.num_files) == (0, 2)
    assert table.refreshed().transaction_version(REWRITES) == 2
    assert version <= table.refreshed().version()


def double(table: ResultTable, rows) -> None:
    """As another engine may: a later run's row of a key that is there, on another day; and a file that was copied back."""
    table.append(rows.table(rows.ok("/in/1.jpg", run_id="r2", run_date=THIRD, num_detections=7), rows.ok("/in/2.jpg")))


def test_rows_beyond_one_a_key_are_repaired(table, rows, tmp_path):
    before = uris(table)
    double(table, rows)
    assert len(uris(table)) == len(before) + 2
    dry = care(table, repair=True, dry_run=True)
    assert (dry.repaired_rows, len(uris(table))) == (2, len(before) + 2)
    assert care(table, repair=True).repaired_rows == 2
    assert uris(table) == before
    with query(
        ResultTable(table.url), "SELECT run_id, num_detections FROM history WHERE uri = '/in/1.jpg'"
    ) as relation:
        assert relation.fetchall() == [("r2", 7)]
    assert care(table, repair=True).repaired_rows == 0


def test_a_dry_run_counts_and_changes_nothing(table):
    with recorded(table, RunRecord(run_id="r1", run_date=SECOND)):
        pass
    before, version = files(table.url), table.refreshed().version()
    done = care(table, dry_run=True, delete_uri=("/in/4.jpg",), delete_before=THIRD)
    assert (done.deleted_rows, done.deleted_runs, done.compacted_files) == (5, 1, 8)
    assert (files(table.url), table.refreshed().version()) == (before, version)


def test_all_rows_of_an_image_are_deleted(table):
    done = care(table, delete_uri=("/in/0.jpg", "file:///in/4.jpg", "/in/unknown.jpg"))
    assert done.deleted_rows == 4
    assert uris(table) == ["1", "2", "3", "5"]
    assert care(table, delete_uri=("/in/0.jpg",)).deleted_rows == 0
    Fence(ResultTable(table.url), "r1", 1000).hold()  # it was released


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_images_to_delete_come_from_a_manifest(suffix, table, tmp_path):
    text = {"csv": "uri\n/in/0.jpg\n../in/1.jpg\n", "jsonl": '{"uri": "/in/0.jpg"}\n{"uri": "../in/1.jpg"}\n'}
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / f"list.{suffix}").write_text(text[suffix])
    done = care(table, delete_uris=str(folder / f"list.{suffix}"))
    assert done.deleted_rows == 3  # the relative name means one beside the manifest


@pytest.mark.parametrize("change", [{"delete_uri": ("/in/0.jpg",)}, {"repair": True}], ids=["deletion", "repair"])
def test_a_change_of_rows_beside_a_live_run_is_refused(change, table, rows, monkeypatch):
    monkeypatch.setattr(maintain_module, "DELETION_INTERVAL_S", 0.2)
    run, ended = Fence(ResultTable(table.url), "r1", 0.2), threading.Event()
    run.hold()

    def beat() -> None:
        while not ended.wait(0.05):
            run.heartbeat()

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(HeldError, match="held by run r1"):
        care(table, **change)
    assert care(table).num_files == 2  # all else passes beside it
    ended.set()
    thread.join()
    run.heartbeat()
    assert len(uris(table)) == 8


def test_a_deletion_that_is_overtaken_deletes_no_more(table, monkeypatch):
    rewrite = maintain_module.rewrite

    def rewrite_after_another_took_it(*arguments, **named):
        Fence(ResultTable(table.url), "r2", 1000).hold(take_over=True)
        return rewrite(*arguments, **named)

    monkeypatch.setattr(maintain_module, "rewrite", rewrite_after_another_took_it)
    with pytest.raises(OvertakenError, match="run r2"):
        care(table, delete_uri=("/in/0.jpg",))
    assert len(uris(table)) == 8


def test_a_compaction_beside_a_deletion_is_done_without_the_rows(table, monkeypatch):
    """It is faster than the deletion, which looks again where the rows are."""
    rewrite, others = maintain_module.rewrite, [lambda: care(ResultTable(table.url))]

    def rewrite_after_another(*arguments, **named):
        if others:
            others.pop()()
        return rewrite(*arguments, **named)

    monkeypatch.setattr(maintain_module, "rewrite", rewrite_after_another)
    assert care(table, delete_uri=("/in/0.jpg",)).deleted_rows == 3
    assert uris(table) == ["1", "2", "3", "4", "5"]


def test_a_compaction_that_is_always_late_leaves_the_files(table, monkeypatch):
    def late(*_, **__):
        raise maintain_module.StaleError

    monkeypatch.setattr(maintain_module, "rewrite", late)
    done = care(table)
    assert (done.compacted_files, done.left_files, done.num_files) == (0, 8, 8)


def test_runs_before_a_date_are_deleted_with_their_records(table):
    for run_id, run_date in (("r1", SECOND), ("r2", THIRD)):
        with recorded(table, RunRecord(run_id=run_id, run_date=run_date)):
            pass
    done = care(table, delete_before=THIRD)
    assert (done.deleted_rows, done.deleted_runs) == (4, 1)
    assert uris(table) == ["0", "3", "4", "5"]
    with query(ResultTable(table.url), "SELECT run_id FROM runs") as relation:
        assert relation.fetchall() == [("r2",)]


def test_erasing_leaves_no_file_that_held_the_rows(table):
    care(table)  # so that old files held them, too
    plan = Path(table.url, WORK_FOLDER, "20260102T030000Z-0123abcd.parquet")
    plan.write_bytes(b"of a killed run")
    assert any(b"/in/0.jpg" in Path(table.url, name).read_bytes() for name in files(table.url))
    done = care(table, delete_uri=("/in/0.jpg",), erase=True)
    assert (done.deleted_rows, done.vacuumed_files) == (3, 10)
    assert files(table.url) == {file.path for file in data_files(table)}
    assert not any(b"/in/0.jpg" in Path(table.url, name).read_bytes() for name in files(table.url))
    notes = list(Path(table.url, WORK_FOLDER).glob("versions-*"))
    assert len(notes) == 1
    assert b"/in/0.jpg" not in notes[0].read_bytes()
    assert not plan.exists()
    assert uris(table) == ["1", "2", "3", "4", "5"]


def test_the_plan_of_the_run_that_holds_the_table_stays_however_old_it_is(table):
    run_id, killed = "20260102T030000Z-0123abcd", "20260102T020000Z-0123abcd"
    plans = [Path(table.url, WORK_FOLDER, f"{name}.parquet") for name in (run_id, killed)]
    for plan in plans:
        plan.parent.mkdir(exist_ok=True)
        plan.touch()
        os.utime(plan, LONG_AGO)
    with Fence(table, run_id, 60).held():
        care(table)
    assert [plan.exists() for plan in plans] == [True, False]


def test_vacuum_deletes_only_what_a_writer_of_tables_has_left(table):
    with recorded(table, RunRecord(run_id="r1")):
        pass
    part = "part-00000-e1fb707b-f273-4b34-94ef-cce1188468d8-c000"
    ours = {"_ssd_batch/runs/r1.parquet", "_LAST_COMPLETE", "_ssd_batch/of-a-newer-version.parquet"}
    theirs = {
        "flat/part-0.parquet", "photos/a.jpg", "run_date=2026-01-02/notes.txt", "run_date=2026-01-02/mine.parquet",
        f"inner/run_date=2026-01-02/{part}.snappy.parquet", "inner/_delta_log/00000000000000000000.json", f"{part}.parquet",
    }  # fmt: skip
    left = "_ssd_batch/20260102T030000Z-0123abcd.parquet"
    young, orphan = f"run_date=2026-01-02/{part}.zstd.parquet", f"run_date=2026-01-02/{part}.snappy.parquet"
    for name in (*ours, *theirs, left, young, orphan):
        Path(table.url, name).parent.mkdir(parents=True, exist_ok=True)
        Path(table.url, name).touch()
        if name != young:
            os.utime(Path(table.url, name), LONG_AGO)
    before = files(table.url)
    assert care(table, dry_run=True).vacuumed_files == 1
    done = care(table)
    assert done.vacuumed_files == 1
    new = {file.path for file in data_files(table)}
    assert files(table.url) == before - {orphan, left} | new
    assert len(uris(table)) == 8


def test_vacuum_deletes_what_was_replaced_long_ago(table, monkeypatch):
    """The log says when, by the clock of the rewrite."""
    old, week_ago = files(table.url), datetime.now(UTC) - timedelta(hours=169)
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.table.rewrite.time.time", week_ago.timestamp)
        patched.setattr("pipeline.table.maintain._tidy", lambda *_: None)
        care(table)
    assert old < files(table.url)
    assert care(table).vacuumed_files == 8
    assert files(table.url) == {file.path for file in data_files(table)}
    assert len(uris(table)) == 8


def test_the_log_is_cut_at_a_checkpoint(table):
    """As if its commits were older than the log's retention."""
    log = Path(table.url, "_delta_log")
    DeltaTable(table.url).alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    num_before = len(list(log.glob("*.json")))
    care(table)
    assert num_before > 5 > len(list(log.glob("*.json")))
    assert json.loads((log / "_last_checkpoint").read_text())["version"] == table.refreshed().version()
    assert len(uris(ResultTable(table.url))) == 8
    held = Fence(ResultTable(table.url), "r1", 1000)
    held.hold()  # transactions are in the checkpoint
    assert ResultTable(table.url).delta.transaction_version(REWRITES) == 2


def test_many_records_of_runs_are_folded(table):
    for number in range(MAX_FILES + 1):
        with recorded(table, RunRecord(run_id=f"r{number}")):
            pass
    assert care(table).folded_runs == MAX_FILES + 1
    with query(table, "SELECT count(*), count(DISTINCT run_id) FROM runs") as relation:
        assert relation.fetchall() == [(MAX_FILES + 1, MAX_FILES + 1)]


def test_an_empty_table_and_none(tmp_path, new_table):
    empty = new_table(tmp_path / "empty")
    done = care(empty, delete_uri=("/a.jpg",), delete_before=THIRD, erase=True)
    assert (done.deleted_rows, done.num_files) == (0, 0)
    with pytest.raises(SettingError, match="no table is there"):
        care(ResultTable(str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"erase": True}, "erase goes with a deletion"),
        ({"delete_before": date.max}, "not in the future"),
        ({"delete_before": "yesterday"}, "delete_before"),
        ({"retention_hours": 1}, "greater than or equal to 168"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MaintainSettings(table="t", **settings)


def test_a_manifest_that_can_not_be_read(table, tmp_path):
    (tmp_path / "list.csv").write_text("name\na.jpg\n")
    with pytest.raises(SettingError, match="needs one named uri"):
        care(table, delete_uris=str(tmp_path / "list.csv"))
    with pytest.raises(SettingError, match=r"delete_uris .* can't be read"):
        care(table, delete_uris=str(tmp_path / "none.csv"))
    assert len(uris(table)) == 8


@pytest.mark.s3
def test_tables_of_s3(s3, new_table, rows):
    bucket = s3.bucket()
    table = fill(new_table(f"s3://{bucket}/table"), rows)
    with recorded(table, RunRecord(run_id="r1", run_date=SECOND)):
        pass
    s3.put(bucket, {"list.csv": b"uri\n/in/0.jpg\n"})
    done = care(table, delete_uris=f"s3://{bucket}/list.csv", erase=True)
    assert (done.deleted_rows, done.num_files) == (3, 2)
    assert uris(table) == ["1", "2", "3", "4", "5"]
    keys = {entry["Key"] for entry in s3.client.list_objects_v2(Bucket=bucket, Prefix="table/")["Contents"]}
    assert {"table/_LAST_COMPLETE", "table/_ssd_batch/runs/r1.parquet"} <= keys
    assert care(table, delete_before=THIRD).deleted_runs == 1
