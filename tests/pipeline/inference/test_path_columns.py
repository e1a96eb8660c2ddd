from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SettingError
from pipeline.inference.path_columns import HIVE, NONE, check_setting, path_columns
from pipeline.inference.plan import make_plan
from pipeline.inputs.manifest import LISTING
from pipeline.table.delta import ResultTable
from pipeline.table.query import query
from pipeline.table.schema import SCHEMA

DAYS = [
    "s3://b/photos/camera=7/date=2026-01-31/a.jpg",
    "s3://b/photos/camera=12/date=2026-02-01/b.jpg",
]


def found(setting: str, uris: list[str], known: pa.Schema = SCHEMA) -> tuple[dict[str, pa.DataType], list[tuple]]:
    """The columns' types by name, and their values a URI."""
    with duckdb.connect() as db:
        db.register("listed", pa.table({"number": range(len(uris)), "uri": uris}))
        columns = path_columns(db, "listed", setting, known)
        values = ", ".join(column.value for column in columns) or "NULL"
        rows = db.execute(f"SELECT {values} FROM listed ORDER BY number").fetchall()
    return {column.name: column.type for column in columns}, rows


@pytest.mark.parametrize("setting", [HIVE, "camera={camera}/date={date}", "/camera={camera}/date={date}/"])
def test_values_are_typed(setting):
    types, rows = found(setting, DAYS)
    assert types == {"camera": pa.int64(), "date": pa.date32()}
    assert rows == [(7, date(2026, 1, 31)), (12, date(2026, 2, 1))]


def test_a_template_stands_for_the_folders_nearest_to_the_file():
    types, rows = found(
        "{site}/cam-{camera}_{lens}", ["/data/oslo/cam-a_1_2/x.jpg", "/north/cam-1_1/bergen/cam-b_3/y.jpg"]
    )
    assert types == {"site": pa.string(), "camera": pa.string(), "lens": pa.string()}
    assert rows == [("oslo", "a", "1_2"), ("bergen", "b", "3")]


def test_types_of_a_template_hold_and_what_does_not_fit_is_null():
    uris = ["/d/007/2026-01-31/1.5/a.jpg", "/d/x/2026-13-31/much/b.jpg", "/c.jpg"]
    types, rows = found("{camera:string}/{date:date}/{zoom:float}", uris)
    assert types == {"camera": pa.string(), "date": pa.date32(), "zoom": pa.float64()}
    assert rows == [("007", date(2026, 1, 31), 1.5), ("x", None, None), (None, None, None)]
    assert found("{camera:int}/{day}/{zoom}", uris)[1][:2] == [(7, "2026-01-31", "1.5"), (None, "2026-13-31", "much")]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "0", "-5"], pa.int64()),
        (["1", "02"], pa.string()),
        (["1", "1.5"], pa.string()),
        (["9" * 19], pa.string()),
        (["2026-01-31", "2024-02-29"], pa.date32()),
        (["2026-01-31", "2026-02-30"], pa.string()),
        (["2026-1-3"], pa.string()),
        (["+1"], pa.string()),
    ],
)
def test_a_type_is_taken_only_when_all_texts_have_it(texts, expected):
    for setting in (HIVE, "value={value}"):
        assert found(setting, [f"/d/value={text}/a.jpg" for text in texts])[0] == {"value": expected}


def test_a_column_that_the_table_has_keeps_its_name_and_type():
    known = pa.schema([*SCHEMA, ("Camera", pa.string())])
    types, rows = found(HIVE, DAYS, known)
    assert types == {"Camera": pa.string(), "date": pa.date32()}
    assert rows[0] == ("7", date(2026, 1, 31))
    known = pa.schema([*SCHEMA, ("date", pa.int64())])
    assert found("{date:date}", DAYS, known)[1] == [(None,), (None,)]


def test_hives_folders_are_unescaped_and_only_folders_count():
    uris = [
        "s3://b/a=1/site=S%C3%A3o%20Paulo/x.jpg",
        "s3://b/a=2/site=__HIVE_DEFAULT_PARTITION__/x=y.jpg",
        "s3://b/a=/not-a=b/=c/1d=e/label=cat/a=3/\n/x.jpg",
        "/plain/x.jpg",
    ]
    types, rows = found(HIVE, uris)
    assert types == {"a": pa.int64(), "site": pa.string()}
    assert rows == [(1, "São Paulo"), (2, None), (3, None), (None, None)]
    assert found(HIVE, ["/plain/x.jpg"]) == ({}, [(None,)])
    assert found(NONE, DAYS)[0] == {}


def test_too_many_columns_of_hives_are_a_wrong_setting():
    with pytest.raises(SettingError, match="21 columns"):
        found(HIVE, ["/".join(["", *(f"c{index}=1" for index in range(21)), "x.jpg"])])


def test_a_template_that_fits_nothing_is_a_wrong_setting():
    with pytest.raises(SettingError, match=r"'kamera=\{camera\}' fits the folders of no image, such as 's3://b/photos"):
        found("kamera={camera}", DAYS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("camera", "give hive, none or a template"),
        ("", "give hive, none or a template"),
        ("{}", "give hive"),
        ("{a b}", "give hive"),
        ("{a", "give hive"),
        ("{a}}", "give hive"),
        ("{a:text}", "string, int, float, date"),
        ("{uri}", "a column uri is there already"),
        ("{Label}", "a column label is there already"),
        ("{a}/{A}", "a column a is there already"),
    ],
)
def test_a_wrong_template_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        check_setting(setting)


def test_the_columns_reach_work_table_and_views(tmp_path, rows):
    listing, work = tmp_path / "listing.parquet", tmp_path / "work.parquet"
    entries = [{"uri": uri, "etag": "v1", "size_bytes": 10} for uri in (*DAYS, "s3://other/c.jpg")]
    pq.write_table(pa.Table.from_pylist(entries, schema=LISTING), listing)
    table = ResultTable(str(tmp_path / "table"))
    plan = make_plan(listing, table, "m1", "r1", 3, work, HIVE)
    assert (plan.path_columns.names, plan.num_unfit, plan.buckets) == (["camera", "date"], 1, ("b", "other"))
    assert set(pq.read_table(work, columns=["camera"]).column(0).to_pylist()) == {7, 12, None}

    table.create()
    table.append(rows.table(rows.ok("before")))
    table.add_columns(table.lacking(plan.path_columns))
    table.refreshed()
    assert table.schema.names == [*SCHEMA.names, "camera", "date"]
    written = rows.ok(DAYS[0], camera=7, date=date(2026, 1, 31), **rows.boxes((1, "cat", 0.5, 1, 2, 3, 4)))
    failed = rows.failed(DAYS[1], "fetch", camera=12, date=date(2026, 2, 1))
    table.append(pa.Table.from_pylist([written, failed], schema=table.schema))
    again = rows.failed(DAYS[1], "decode", camera=12, date=date(2026, 2, 1), num_attempts=2)
    table.replace(pa.Table.from_pylist([again], schema=table.schema))
    table = ResultTable(table.url)
    for sql, expected in {
        "SELECT uri, camera, date FROM images ORDER BY camera": [
            (DAYS[0], 7, date(2026, 1, 31)),
            (DAYS[1], 12, date(2026, 2, 1)),
            ("before", None, None),
        ],
        "SELECT camera, label FROM detections WHERE date >= DATE '2026-01-01'": [(7, "cat")],
        "SELECT camera, num_attempts FROM failures": [(12, 2)],
    }.items():
        with query(table, sql) as relation:
            assert relation.fetchall() == expected


def test_a_table_whose_files_lack_the_columns_has_them(tmp_path, new_table, rows):
    table = new_table(tmp_path / "table", rows.ok("before"))
    table.add_columns([pa.field("camera", pa.int64())])
    with query(ResultTable(table.url), "SELECT uri, camera FROM images") as relation:
        assert relation.fetchall() == [("before", None)]


def test_a_folder_above_the_table_is_no_column(tmp_path, new_table, rows):
    table = new_table(tmp_path / "camera=9/status=all/table")
    table.add_columns([pa.field("camera", pa.int64())])
    table.append(pa.Table.from_pylist([rows.ok("a", camera=7)], schema=table.schema))
    with query(ResultTable(table.url), "SELECT uri, camera, status FROM images") as relation:
        assert relation.fetchall() == [("a", 7, "ok")]


def test_a_column_that_no_path_can_give_is_not_overwritten():
    """A newer version's, say."""
    known = pa.schema([*SCHEMA, ("camera", pa.int32())])
    with pytest.raises(SettingError, match="column camera is of type int32, which no path gives; give none"):
        found(HIVE, DAYS, known)
