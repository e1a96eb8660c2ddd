import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from pipeline.errors import SettingError
from pipeline.storage import store
from pipeline.table.delta import ResultTable
from pipeline.table.query import query
from pipeline.table.schema import SCHEMA

FIRST_VERSION = Path(__file__).parents[2] / "data/first_version"
ODD_NAMES = [
    "status=lost",
    "run_date=2020-01-01",
    "quote's",
    "semi;colon",
    "with space",
    "ünï_図",
    "what?",
]


def select(table: ResultTable, sql: str) -> list[tuple]:
    with query(table, sql) as relation:
        return relation.fetchall()


def test_a_table_that_is_not_there_is_not_made_by_opening_it(tmp_path):
    table = ResultTable(f"{tmp_path}/table/")
    assert (table.url, table.exists, table.data_files()) == (f"{tmp_path}/table", False, [])
    assert not (tmp_path / "table").exists()


def test_rows_come_back_as_they_were_written(tmp_path, new_table, rows):
    boxes = rows.boxes((1, "cat", 0.5, 1, 2, 3, 4), (2, "dog", 0.25, 5, 6, 7, 8))
    written = rows.table(rows.ok("a", **boxes), rows.ok("b"), rows.failed("c", "decode"))
    new_table(tmp_path / "table").append(written)
    found = DeltaTable(tmp_path / "table").to_pyarrow_table().select(SCHEMA.names).sort_by("uri")
    assert found.to_pylist() == written.to_pylist()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_table_may_have_any_name(name, tmp_path, new_table, rows):
    table = new_table(tmp_path / name, rows.ok("a"))
    table.append(rows.table(rows.ok("b", run_date=date(2026, 1, 3))))
    table.replace(rows.table(rows.ok("a", num_attempts=2)))
    assert (tmp_path / name / "_delta_log").is_dir()
    expected = [("a", date(2026, 1, 2), 2), ("b", date(2026, 1, 3), 1)]
    assert select(ResultTable(table.url), "SELECT uri, run_date, num_attempts FROM images ORDER BY 1") == expected


@pytest.mark.parametrize("url", ["gs://bucket/table", "memory://table", "https://host/table"])
def test_a_place_that_keeps_no_two_runs_apart_is_refused(url):
    with pytest.raises(SettingError, match="neither a local path nor an s3:// URL"):
        ResultTable(url)


@pytest.mark.parametrize("name", ["per%20cent", "[bracket]", "back\\slash"])
def test_a_name_that_would_be_misread_is_refused(name, tmp_path):
    with pytest.raises(SettingError, match="table "):
        ResultTable(str(tmp_path / name / "table"))


def test_a_row_replaces_the_one_with_its_key(tmp_path, new_table, rows):
    kept = rows.boxes((1, "cat", 0.5, 1, 2, 3, 4))
    table = new_table(
        tmp_path / "table",
        rows.ok("kept", **kept),
        rows.failed("again", "fetch"),
        rows.failed("again", "fetch", model_digest="m2"),
        rows.failed("again", "fetch", etag="v0"),
    )
    tonight = {"run_date": date(2026, 1, 3), "processed_at": datetime(2026, 1, 3, 3, tzinfo=UTC)}
    table.replace(
        rows.table(
            rows.ok("again", num_attempts=2, **tonight, **rows.boxes((2, "dog", 0.25, 5, 6, 7, 8))),
            rows.ok("new", **rows.boxes((1, "cat", 0.75, 1, 1, 2, 2))),
            rows.failed("lost", "fetch", num_attempts=3),  # Its old row went with a crash.
        )
    )
    columns = "uri, etag, model_digest, status, num_attempts, run_date"
    first, second = date(2026, 1, 2), date(2026, 1, 3)
    assert select(table, f"SELECT {columns} FROM history ORDER BY ALL") == [
        ("again", "v0", "m1", "failed", 1, first),
        ("again", "v1", "m1", "ok", 2, second),
        ("again", "v1", "m2", "failed", 1, first),
        ("kept", "v1", "m1", "ok", 1, first),
        ("lost", "v1", "m1", "failed", 3, first),
        ("new", "v1", "m1", "ok", 1, first),
    ]
    assert select(table, "SELECT uri, label, score, xmin, ymin, xmax, ymax FROM detections ORDER BY uri") == [
        ("again", "dog", 0.25, 5, 6, 7, 8),
        ("kept", "cat", 0.5, 1, 2, 3, 4),
        ("new", "cat", 0.75, 1, 1, 2, 2),
    ]


def test_an_open_table_sees_what_another_wrote(tmp_path, new_table, rows):
    reader = new_table(tmp_path / "table")
    assert reader.data_files() == []
    ResultTable(reader.url).append(rows.table(rows.ok("a")))
    assert len(reader.data_files()) == 1
    reader.append(rows.table(rows.ok("b")))
    assert select(reader, "SELECT uri FROM images ORDER BY 1") == [("a",), ("b",)]


def test_a_working_file_that_can_not_be_deleted_hides_no_error(tmp_path, monkeypatch):
    """How the run ended matters more; maintain deletes the file."""
    table = ResultTable(str(tmp_path / "table"))
    (tmp_path / "work").write_text("plan")

    def refuse(url):
        raise OSError("no route to host")

    monkeypatch.setattr(store, "delete", refuse)
    with pytest.raises(ZeroDivisionError), table.working_file(tmp_path / "work", "r1.parquet"):
        raise ZeroDivisionError


def test_a_working_file_lies_beside_the_table_for_a_while(tmp_path):
    (tmp_path / "work").write_text("work")
    table = ResultTable(str(tmp_path / "table"))
    table.create()
    with table.working_file(tmp_path / "work", "r1.parquet") as url:
        assert url.startswith(table.url)
        assert Path(url).read_text() == "work"
        assert ResultTable(table.url).data_files() == []
    assert not list((tmp_path / "table").rglob("r1.parquet"))


def test_a_table_of_something_else_is_refused(tmp_path):
    write_deltalake(tmp_path / "table", pa.table({"uri": ["a"], "price": [1]}))
    with pytest.raises(SettingError, match="made by something else: it has no column etag, no column model_digest"):
        ResultTable(str(tmp_path / "table"))


def other_table(url: object, schema: pa.Schema, *rows: dict, partition_by: str = "run_date") -> ResultTable:
    """A table of another version, with a row or two."""
    write_deltalake(url, pa.Table.from_pylist(list(rows), schema=schema), partition_by=[partition_by])
    return ResultTable(str(url))


LATER = ("max_score", "error_message")
"""As if these had come to `SCHEMA` since."""
OLDER = pa.schema([field for field in SCHEMA if field.name not in LATER])
NEWER = pa.schema([*SCHEMA, ("blur", pa.float64()), ("tags", pa.list_(pa.string()))])


def test_a_table_of_an_older_version_is_read_and_completed_by_the_next_run(tmp_path, rows):
    table = other_table(tmp_path / "table", OLDER, rows.ok("a"), rows.failed("b", "fetch"))
    query_all = "SELECT uri, max_score, error_message FROM images ORDER BY uri"
    assert select(table, query_all) == [("a", None, None), ("b", None, None)]
    assert table.schema == SCHEMA
    assert set(table.stored_schema.names) == set(OLDER.names)
    table.add_columns(table.lacking())
    table.refreshed()
    table.append(rows.table(rows.ok("c", **rows.boxes((1, "cat", 0.5, 1, 2, 3, 4)))))
    table.replace(rows.table(rows.failed("b", "fetch", num_attempts=2)))
    assert select(ResultTable(table.url), query_all) == [("a", None, None), ("b", None, "why"), ("c", 0.5, None)]
    assert table.lacking() == []


def test_a_column_that_came_while_rows_were_made_is_null_in_them(tmp_path, new_table, rows):
    table = new_table(tmp_path / "table", rows.failed("b", "fetch"))
    ResultTable(table.url).add_columns([pa.field("camera", pa.int64())])
    table.refreshed()
    table.append(rows.table(rows.ok("a")))
    table.replace(rows.table(rows.ok("b", num_attempts=2)))
    assert select(ResultTable(table.url), "SELECT uri, status, camera FROM images ORDER BY uri") == [
        ("a", "ok", None),
        ("b", "ok", None),
    ]


def test_columns_of_a_newer_version_stay(tmp_path, rows):
    new = {"blur": 0.5, "tags": ["x"]}
    table = other_table(tmp_path / "table", NEWER, rows.ok("a") | new, rows.failed("b", "fetch") | new)
    table.create()
    table.append(pa.Table.from_pylist([rows.ok("c")], schema=table.schema))
    table.replace(pa.Table.from_pylist([rows.ok("b", num_attempts=2)], schema=table.schema))
    assert select(ResultTable(table.url), "SELECT uri, blur, tags, num_attempts FROM images ORDER BY uri") == [
        ("a", 0.5, ["x"], 1),
        ("b", None, None, 2),
        ("c", None, None, 1),
    ]


def test_columns_of_another_type_are_refused(tmp_path, rows):
    schema = SCHEMA.set(SCHEMA.get_field_index("num_attempts"), pa.field("num_attempts", pa.string()))
    with pytest.raises(SettingError, match=r"a column num_attempts of type .*string.*, not .*integer"):
        other_table(tmp_path / "table", schema, rows.ok("a", num_attempts="1"))
    with pytest.raises(SettingError, match="other partitions than run_date"):
        other_table(tmp_path / "other", SCHEMA, rows.ok("a"), partition_by="status")


def test_a_table_of_the_first_version(tmp_path, rows):
    copy = shutil.copytree(FIRST_VERSION, tmp_path / "table")
    table = ResultTable(str(copy))
    assert select(table, "SELECT uri, status, num_attempts FROM images ORDER BY uri") == [
        ("/pictures/broken.jpg", "failed", 1),
        ("/pictures/cat.jpg", "ok", 1),
        ("/pictures/empty.jpg", "ok", 1),
        ("/pictures/lost.jpg", "failed", 2),
        ("/pictures/new.jpg", "ok", 1),
    ]
    table.create()
    table.replace(rows.table(rows.ok("/pictures/lost.jpg", etag="1-10", num_attempts=3), rows.ok("/pictures/more.jpg")))
    assert select(table, "SELECT count(*), max(num_attempts) FROM history") == [(6, 3)]
    assert select(table, "SELECT uri, label, score FROM detections") == [("/pictures/cat.jpg", "cat", 0.5)]


def test_a_place_with_other_files_is_refused(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "holiday.jpg").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    for name in ("", "deep", "file"):
        with pytest.raises(SettingError, match="table "):
            ResultTable(str(tmp_path / name))


@pytest.mark.parametrize("place", ["inner", "run_date=2026-01-02/inner", "_ssd_batch/inner"])
def test_a_table_inside_of_a_table_is_refused(place, tmp_path, new_table, rows):
    outer = new_table(tmp_path / "outer", rows.ok("a"))
    with pytest.raises(SettingError, match=f"would be inside the table '{outer.url}'; name a place outside of it"):
        ResultTable(f"{outer.url}/{place}")
    assert not ResultTable(f"{outer.url}-beside").exists


def test_a_broken_log_is_a_wrong_setting(tmp_path, new_table):
    table = new_table(tmp_path / "table")
    log = tmp_path / "table" / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("\n".join(json.dumps(action) for action in actions if "metaData" not in action))
    with pytest.raises(SettingError, match="can't be opened"):
        ResultTable(table.url)


@pytest.mark.parametrize("content", [b"", b"PAR1 cut short"])
def test_a_torn_checkpoint_is_told_with_the_way_out(content, tmp_path, new_table, rows):
    table = new_table(tmp_path / "table", rows.ok("a"), rows.ok("b"))
    DeltaTable(table.url).create_checkpoint()
    log = tmp_path / "table/_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    checkpoint.write_bytes(content)
    with pytest.raises(SettingError, match=r"All commits are there next to it: move _last_checkpoint and the damaged"):
        ResultTable(table.url)
    for file in (checkpoint, log / "_last_checkpoint"):
        file.rename(tmp_path / file.name)
    assert select(ResultTable(table.url), "SELECT uri FROM images ORDER BY 1") == [("a",), ("b",)]
    for file in (checkpoint, log / "_last_checkpoint"):
        (tmp_path / file.name).rename(file)
    (log / f"{0:020}.json").unlink()
    with pytest.raises(SettingError, match=r"the commits before it are gone: bring it back from a backup"):
        ResultTable(table.url)


@pytest.mark.s3
def test_tables_of_s3(s3, new_table, rows):
    url = f"s3://{s3.bucket()}/deep/table"
    table = new_table(url, rows.failed("a", "fetch"))
    table.replace(rows.table(rows.ok("a", num_attempts=2), rows.ok("b")))
    assert select(ResultTable(url), "SELECT uri, status FROM images ORDER BY 1") == [("a", "ok"), ("b", "ok")]


@pytest.mark.s3
def test_places_of_s3_that_are_no_table(s3):
    bucket = s3.bucket()
    s3.put(bucket, {"pictures/holiday.jpg": b""})
    with pytest.raises(SettingError, match="other files"):
        ResultTable(f"s3://{bucket}/pictures")
    with pytest.raises(SettingError, match="no-such-bucket"):
        ResultTable("s3://no-such-bucket/table")
    assert not ResultTable(f"s3://{bucket}/new").exists


def test_the_table_within_a_folder_is_named(tmp_path, new_table, rows):
    new_table(tmp_path / "demo-out/table", rows.ok("a"))
    (tmp_path / "demo-out/pictures").mkdir()
    with pytest.raises(SettingError, match=r"other files in it, and no table; .*/demo-out/table is one"):
        ResultTable(str(tmp_path / "demo-out"))


def test_a_table_that_another_run_has_just_made_is_used(tmp_path, rows):
    first, second = ResultTable(str(tmp_path / "t")), ResultTable(str(tmp_path / "t"))
    assert not second.exists
    first.create()
    second.create()
    second.append(rows.table(rows.ok("a")))
    assert len(first.data_files()) == 1


@pytest.mark.parametrize(
    ("action", "feature"),
    [
        (
            {
                "protocol": {
                    "minReaderVersion": 3,
                    "minWriterVersion": 7,
                    "readerFeatures": ["deletionVectors"],
                    "writerFeatures": ["deletionVectors"],
                }
            },
            "deletionVectors",
        ),
        (
            {
                "protocol": {
                    "minReaderVersion": 3,
                    "minWriterVersion": 7,
                    "readerFeatures": ["columnMapping"],
                    "writerFeatures": ["columnMapping"],
                }
            },
            "columnMapping",
        ),
    ],
)
def test_what_files_do_not_say_is_refused(action, feature, tmp_path, new_table, rows):
    """Rows that another engine deleted beside the files, say. Also when it comes while the table is open."""
    table = new_table(tmp_path / "table", rows.ok("a"))
    (tmp_path / f"table/_delta_log/{table.refreshed().version() + 1:020}.json").write_text(json.dumps(action))
    for use in (table.data_files, lambda: ResultTable(table.url)):
        with pytest.raises(SettingError, match=rf"uses Delta features that are not read here: {feature}; drop them"):
            use()
