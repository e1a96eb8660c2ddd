import os
from datetime import UTC, date, datetime

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pytest
from deltalake import write_deltalake

from pipeline.errors import SettingError, SsdBatchError
from pipeline.sql import identifier
from pipeline.table.delta import ResultTable
from pipeline.table.query import query
from pipeline.table.read_only import ReadOnlyFiles
from pipeline.table.run_records import RunRecord, recorded
from pipeline.table.schema import SCHEMA

DETECTIONS = [
    "uri", "etag", "model_name", "model_digest", "run_id", "run_date", "width_px", "height_px",
    "label_id", "label", "score", "xmin", "ymin", "xmax", "ymax",
]  # fmt: skip
FAILURES = [
    "uri", "etag", "model_name", "model_digest", "run_id", "run_date", "processed_at",
    "error_stage", "error_type", "error_message", "num_attempts", "is_permanent",
]  # fmt: skip


@pytest.fixture
def fill(new_table, rows):
    """Two pictures with boxes, one without any, two failures; over two days."""

    def fill(url: object) -> ResultTable:
        two = rows.boxes((1, "cat", 0.5, 1, 2, 3, 4), (2, "dog", 0.25, 5, 6, 7, 8))
        one = rows.boxes((1, "cat", 0.75, 0, 0, 40, 30))
        return new_table(
            url,
            rows.ok("a", **two),
            rows.ok("b", run_date=date(2026, 1, 3), **one),
            rows.ok("empty"),
            rows.failed("broken", "decode"),
            rows.failed("lost", "fetch"),
        )

    return fill


@pytest.fixture
def table(tmp_path, fill) -> ResultTable:
    return fill(tmp_path / "table")


def select(table: ResultTable, sql: str) -> list[tuple]:
    with query(table, sql) as relation:
        return relation.fetchall()


def columns(table: ResultTable, view: str) -> list[str]:
    with query(table, f"FROM {view}") as relation:
        return relation.columns


def test_the_views(table):
    assert columns(table, "images") == SCHEMA.names
    assert columns(table, "detections") == DETECTIONS
    assert columns(table, "failures") == FAILURES
    assert select(table, "SELECT count(*), count(*) FILTER (status = 'ok') FROM images") == [(5, 3)]
    assert select(table, "SELECT uri, run_date, label, score, xmax FROM detections ORDER BY score") == [
        ("a", date(2026, 1, 2), "dog", 0.25, 7),
        ("a", date(2026, 1, 2), "cat", 0.5, 3),
        ("b", date(2026, 1, 3), "cat", 0.75, 40),
    ]
    assert select(table, "SELECT uri, error_stage, error_message, is_permanent FROM failures ORDER BY uri") == [
        ("broken", "decode", "why", True),
        ("lost", "fetch", "why", False),
    ]


def test_of_a_changed_image_the_views_have_the_latest_version(tmp_path, new_table, rows):
    earlier, later = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    cat, dog = rows.boxes((1, "cat", 0.5, 1, 2, 3, 4)), rows.boxes((2, "dog", 0.5, 1, 2, 3, 4))
    table = new_table(
        tmp_path / "table",
        rows.ok("changed", etag="v2", processed_at=later, **dog),
        rows.ok("changed", etag="v1", processed_at=earlier, **cat),
        rows.ok("changed", etag="v1", model_digest="m2", processed_at=earlier, **cat),
        rows.failed("mended", "decode", processed_at=earlier),
        rows.ok("mended", etag="v2", processed_at=later),
        rows.failed("broken", "decode", etag="v2", processed_at=later),
        rows.ok("broken", processed_at=earlier, **cat),
    )
    assert select(table, "SELECT uri, etag, model_digest FROM images ORDER BY ALL") == [
        ("broken", "v1", "m1"),
        ("broken", "v2", "m1"),
        ("changed", "v1", "m2"),
        ("changed", "v2", "m1"),
        ("mended", "v2", "m1"),
    ]
    assert select(table, "SELECT uri, model_digest, label FROM detections ORDER BY ALL") == [
        ("broken", "m1", "cat"),
        ("changed", "m1", "dog"),
        ("changed", "m2", "cat"),
    ]
    assert select(table, "SELECT uri FROM failures") == [("broken",)]
    assert select(table, "SELECT count(*) FROM history") == [(7,)]


def test_a_failure_hides_no_older_success(tmp_path, new_table, rows):
    """A manifest that lags names a version that is gone: that failed row stands beside the detections, until a later success."""
    cat = rows.boxes((1, "cat", 0.5, 1, 2, 3, 4))
    stale = {"error_type": "ChangedError", "etag": "v0"}
    table = new_table(
        tmp_path / "table",
        rows.ok("a", run_id="r1", **cat),
        rows.failed("a", "fetch", run_id="r2", **stale),
        rows.ok("b", run_id="r1"),
    )
    assert select(table, "SELECT uri, etag, status FROM images ORDER BY ALL") == [
        ("a", "v0", "failed"), ("a", "v1", "ok"), ("b", "v1", "ok"),
    ]  # fmt: skip
    assert select(table, "SELECT uri, label FROM detections") == [("a", "cat")]
    assert select(table, "SELECT uri, etag FROM failures") == [("a", "v0")]
    table.append(rows.table(rows.ok("a", run_id="r3", etag="v2")))
    assert select(table, "SELECT uri, etag, status FROM images ORDER BY ALL") == [("a", "v2", "ok"), ("b", "v1", "ok")]
    assert select(table, "FROM failures") == []


def test_an_empty_table_has_the_same_views(tmp_path, new_table):
    empty = new_table(tmp_path / "empty")
    for view, expected in (("images", SCHEMA.names), ("detections", DETECTIONS), ("failures", FAILURES)):
        assert columns(empty, view) == expected
        assert select(empty, f"FROM {view}") == []


def test_no_table_is_a_wrong_setting(tmp_path):
    with pytest.raises(SettingError, match="no table is there"):
        select(ResultTable(str(tmp_path / "table")), "FROM images")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("PIVOT detections ON label USING count(*) GROUP BY uri ORDER BY uri", [("a", 1, 1), ("b", 1, 0)]),
        ("FROM (PIVOT detections ON label IN ('cat') USING count(*) GROUP BY uri) ORDER BY uri", [("a", 1), ("b", 1)]),
        ("SELECT column_name FROM (DESCRIBE failures) LIMIT 2", [("uri",), ("etag",)]),
        ("SELECT column_name, count FROM (SUMMARIZE SELECT score FROM detections)", [("score", 3)]),
    ],
)
def test_questions_about_the_data(sql, expected, table):
    assert select(table, sql) == expected


@pytest.mark.parametrize(
    "sql",
    ["DESCRIBE images", "SUMMARIZE detections", "EXPLAIN SELECT uri FROM images", "explain analyze FROM failures"],
)
def test_statements_that_only_tell(sql, table):
    assert select(table, sql)


@pytest.mark.parametrize(
    "sql", ["WITH x AS (FROM images) SELECT count(*) FROM x", "SELECT uri FROM images", "SELECT 5;", "(SELECT 5)"]
)
def test_what_a_select_may_look_like(sql, table):
    assert select(table, sql)


WRITES = [
    "COPY (SELECT 'x' AS x) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY (SELECT 'x' AS x) TO 'table://{name}' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY (SELECT 'x' AS x) TO 'table://{name}' (FORMAT csv)",
    "COPY (SELECT 'x' AS x) TO '{out}'",
    "INSERT INTO images SELECT * FROM images RETURNING uri AS x",
    "UPDATE images SET uri = '' RETURNING uri AS x",
    "DELETE FROM images RETURNING uri AS x",
]
"""Bodies that DuckDB takes for a CTE: such a statement's type is SELECT."""
HIDDEN = [
    place.replace("BODY", body)
    for body in WRITES
    for place in (
        "WITH a AS (BODY) SELECT * FROM a",
        "WITH a AS MATERIALIZED (BODY) SELECT * FROM a",
        "SELECT * FROM (WITH a AS (BODY) SELECT * FROM a)",
        "SELECT 1 WHERE EXISTS (WITH a AS (BODY) SELECT * FROM a)",
        "SELECT 1 UNION ALL SELECT 2 FROM (WITH a AS (BODY) SELECT * FROM a)",
        "DESCRIBE WITH a AS (BODY) SELECT * FROM a",
        "EXPLAIN ANALYZE WITH a AS (BODY) SELECT * FROM a",
        "SELECT * FROM (PIVOT (WITH a AS (BODY) SELECT * FROM a) ON x USING count(*))",
        "CREATE MACRO f() AS TABLE WITH a AS (BODY) SELECT * FROM a",
        "CREATE TEMP VIEW v AS WITH a AS (BODY) SELECT * FROM a",
    )
] + [f"SELECT * FROM query('WITH a AS ({body.replace(chr(39), 2 * chr(39))}) SELECT * FROM a')" for body in WRITES]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{out}'",
        "COPY images TO '{out}' (FORMAT parquet)",
        "ATTACH '{out}' AS other",
        "CREATE TABLE x AS SELECT 1",
        "CREATE OR REPLACE VIEW images AS SELECT 1",
        "CREATE MACRO f() AS 1",
        "INSERT INTO images SELECT * FROM images",
        "UPDATE images SET uri = ''",
        "DELETE FROM images",
        "DROP VIEW images",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET enable_external_access",
        "PRAGMA database_list",
        "EXPORT DATABASE '{out}'",
        "EXPLAIN COPY (SELECT 1) TO '{out}'",
        "EXPLAIN INSERT INTO images SELECT * FROM images",
        "EXPLAIN EXPLAIN COPY (SELECT 1) TO '{out}'",
        "PIVOT detections ON label USING count(*); SELECT 1",
        "SELECT * FROM (PIVOT (SELECT * FROM query('SELECT 1 AS a')) ON a USING count(*))",
        "SELECT * FROM (PIVOT (SELECT * FROM read_csv('/etc/passwd')) ON column0 USING count(*))",
        "CALL pragma_version()",
        "BEGIN",
        "SELECT 1; COPY (SELECT 1) TO '{out}'",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_parquet('{secret}')",
        "SELECT * FROM parquet_metadata('{secret}')",
        "SELECT * FROM read_parquet('{table}/../secret.parquet')",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
        "SELECT * FROM 'https://127.0.0.1:1/x.parquet'",
        "SELECT getenv('HOME')",
        "SELECT * FROM secret_rows",
        "SELECT nothing FROM images",
        "no SQL at all",
        *HIDDEN,
    ],
)
def test_nothing_is_written_and_nothing_else_is_read(sql, table, tmp_path):
    secret, out = tmp_path / "secret.parquet", tmp_path / "out"
    secret_rows = SCHEMA.empty_table()  # DuckDB looks for names among Python's variables.
    pyarrow.parquet.write_table(secret_rows, secret)
    before = files(tmp_path)
    with pytest.raises(SettingError, match="query"):
        select(
            table,
            sql.format(
                secret=secret,
                out=out,
                table=table.url,
                file=table.data_files()[0],
                name=table.data_files()[0].removeprefix(f"{table.url}/"),
            ),
        )
    assert files(tmp_path) == before


def test_records_of_runs_are_read_without_the_images(table):
    """Of a large table to open all files takes seconds."""
    with recorded(table, RunRecord(run_id="r1")):
        pass
    for file in table.data_files():
        os.remove(file)
    assert select(table, "SELECT run_id FROM RUNS") == [("r1",)]
    assert select(table, "SELECT images_per_s, failed FROM runs") == [(None, None)]  # names that hold those of views
    with pytest.raises(SsdBatchError, match=r"^table '.*' can't be read: .*No files found"):
        select(table, "SELECT run_id FROM runs JOIN Images USING (run_id)")


@pytest.mark.parametrize("sql", [sql for sql in HIDDEN if sql.startswith(("WITH", "SELECT"))])
def test_below_sql_files_can_only_be_read(sql, table, tmp_path, monkeypatch):
    """Also where a statement is not known to write."""
    monkeypatch.setattr("pipeline.table.query._one_select", lambda db, sql: sql)
    before = files(tmp_path)
    with pytest.raises((SettingError, duckdb.Error)):
        select(
            table,
            sql.format(
                out=tmp_path / "out",
                file=table.data_files()[0],
                name=table.data_files()[0].removeprefix(f"{table.url}/"),
            ),
        )
    assert files(tmp_path) == before
    assert select(table, "SELECT count(*) FROM images") == [(5,)]


@pytest.mark.s3
def test_below_sql_files_on_s3_can_only_be_read(s3, fill, monkeypatch):
    monkeypatch.setattr("pipeline.table.query._one_select", lambda db, sql: sql)
    table = fill(f"s3://{s3.bucket()}/table")
    for body in WRITES[:4]:
        sql = f"WITH a AS ({body}) SELECT * FROM a".format(
            file=table.data_files()[0], name=table.data_files()[0].removeprefix(f"{table.url}/"), out=f"{table.url}/out"
        )
        with pytest.raises(SettingError):
            select(table, sql)
    assert select(table, "SELECT count(*) FROM images") == [(5,)]


def test_what_does_not_fit_goes_to_a_folder_of_its_own(table):
    with query(table, "SELECT current_setting('temp_directory')") as relation:
        ((folder,),) = relation.fetchall()
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert not os.path.exists(folder)


def files(folder: object) -> dict[str, int]:
    return {
        os.path.join(parent, name): os.stat(os.path.join(parent, name)).st_mtime_ns
        for parent, _, names in os.walk(folder)
        for name in names
    }


def test_times_are_utc(table):
    with query(table, "SELECT processed_at FROM images LIMIT 1") as relation:
        assert relation.to_arrow_table().to_pylist() == [{"processed_at": datetime(2026, 1, 2, 3, tzinfo=UTC)}]


def test_an_error_while_rows_are_read_is_one_of_the_query(table):
    with pytest.raises(SettingError, match="broken"):
        select(table, "SELECT uri::INTEGER FROM images WHERE uri = 'broken'")


def test_old_files_are_not_counted(table, rows):
    table.replace(rows.table(rows.ok("lost", num_attempts=2)))
    assert select(table, "SELECT count(*), count(DISTINCT uri) FROM images") == [(5, 5)]


@pytest.mark.s3
def test_tables_of_s3_are_queried(s3, fill):
    bucket = s3.bucket()
    s3.put(bucket, {"secret.csv": b"a\n1\n"})
    table = fill(f"s3://{bucket}/table")
    assert select(table, "SELECT uri, label, run_date FROM detections ORDER BY score DESC LIMIT 1") == [
        ("b", "cat", date(2026, 1, 3))
    ]
    for sql in (f"FROM 's3://{bucket}/secret.csv'", f"COPY images TO 's3://{bucket}/out'", "FROM glob('s3://*')"):
        with pytest.raises(SettingError, match="query"):
            select(table, sql)


def test_each_layer_refuses_by_itself(table):
    """The parse tree, whatever lies below; and the files, whatever asks for them."""
    with pytest.raises(SettingError, match=r"this holds another \(COPY\)"):
        select(table, "WITH a AS (COPY (SELECT 1 AS x) TO 'x.parquet') SELECT * FROM a")
    for mode in ("wb", "ab", "r+b", "xb"):
        with pytest.raises(PermissionError, match="can only be read"):
            ReadOnlyFiles(table.url).open("x.parquet", mode)


def test_a_table_behind_a_symbolic_link(tmp_path, fill, rows):
    """delta-rs names the files by the folder that the link leads to."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "my tables").symlink_to("disk")
    table = fill(tmp_path / "my tables/found")
    assert select(table, "SELECT count(*) FROM images") == [(5,)]
    (tmp_path / "link").symlink_to("disk/found")
    assert select(ResultTable(str(tmp_path / "link")), "SELECT count(*) FROM images") == [(5,)]


def test_a_columns_name_is_no_sql(tmp_path, new_table, rows):
    """Of a table that someone else has written: its columns are named, never run."""
    table, written = new_table(tmp_path / "table", rows.ok("a")), tmp_path / "written.txt"
    nulls = ", ".join(f'NULL AS "{field.name}"' for field in table.schema)
    name = f"""z" FROM (SELECT {nulls}, 1 AS z); COPY (SELECT 'owned') TO '{written}'; CREATE VIEW results AS SELECT 1; --"""
    more = pa.table(
        {**rows.table(rows.ok("b")).to_pydict(), name: ["odd"]}, schema=pa.schema([*table.schema, (name, pa.string())])
    )
    write_deltalake(table.url, more, mode="append", partition_by=["run_date"], schema_mode="merge")
    with query(ResultTable(table.url), f"SELECT {identifier(name)} FROM history ORDER BY uri") as found:
        assert found.fetchall() == [(None,), ("odd",)]
    assert not written.exists()
