"""The table as readers of Iceberg see it: after each commit that a run, `maintain` or another engine makes."""

import json
import sys
from dataclasses import replace
from datetime import date

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyiceberg.catalog import load_catalog

from jobs.__main__ import cli
from pipeline.errors import SettingError
from pipeline.table import iceberg
from pipeline.table.delta import ResultTable
from pipeline.table.maintain import maintain
from pipeline.table.settings import IcebergSettings, MaintainSettings

NAME = "detections.photos"
CAT, DOG = (1, "cat", 0.5, 1, 2, 3, 4), (2, "dog", 0.25, 5, 6, 7, 8)


@pytest.fixture(autouse=True)
def catalog(tmp_path, monkeypatch) -> None:
    """One in a file, as pyiceberg's own configuration describes it."""
    (tmp_path / "warehouse").mkdir()
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")  # without a warning that another is faster
    monkeypatch.setenv("PYICEBERG_CATALOG__SHOP__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__SHOP__WAREHOUSE", f"file://{tmp_path}/warehouse")
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", type(sys.modules["pyiceberg.catalog"]._ENV_CONFIG)())


@pytest.fixture
def table(tmp_path, new_table, rows) -> ResultTable:
    """Two days, and two rows that a run will replace."""
    return new_table(
        tmp_path / "table",
        rows.ok("/a", **rows.boxes(CAT, DOG)),
        rows.ok("/b", run_date=date(2026, 1, 3), **rows.boxes(DOG)),
        rows.failed("/c", "fetch"),
    )


def register(table: ResultTable, **more: str) -> iceberg.Registered:
    return iceberg.register(IcebergSettings(**{"table": table.url, "name": NAME, "catalog": "shop", **more}))


def same_rows_everywhere(table: ResultTable) -> list[str]:
    """Register the table, and compare what readers see. The URIs that they see."""
    done = register(table)
    mirror = load_catalog("shop").load_table(NAME)
    by_delta = DeltaTable(table.url).to_pyarrow_table().sort_by("uri")
    by_iceberg = mirror.scan().to_arrow().sort_by("uri")
    expected = [
        row | {"detections": row["detections"] or []} for row in by_delta.to_pylist()
    ]  # pyiceberg reads null lists so
    assert by_iceberg.select(by_delta.schema.names).to_pylist() == expected
    seen_by_duckdb = by_iceberg
    counts = {
        "registered": done.rows,
        "polars": pl.scan_iceberg(mirror).collect().height,
        "polars of delta": pl.scan_delta(table.url).collect().height,
        "duckdb": duckdb.sql("SELECT count(*) FROM seen_by_duckdb").fetchall()[0][0],
        "a day": mirror.scan("run_date = '2026-01-03'").to_arrow().num_rows
        + mirror.scan("run_date != '2026-01-03'").count(),
    }
    assert set(counts.values()) == {by_delta.num_rows}, counts
    assert seen_by_duckdb.num_rows == by_delta.num_rows
    return by_iceberg["uri"].to_pylist()


def test_all_that_happens_to_a_table(table, rows):
    assert same_rows_everywhere(table) == ["/a", "/b", "/c"]
    table.append(rows.table(rows.ok("/d", **rows.boxes(CAT))))
    assert same_rows_everywhere(table) == ["/a", "/b", "/c", "/d"]
    table.replace(rows.table(rows.ok("/c", run_id="r2", **rows.boxes(DOG)), rows.ok("/e")))  # a MERGE
    assert same_rows_everywhere(table) == ["/a", "/b", "/c", "/d", "/e"]
    table.uncount("r1", date(2026, 1, 2))  # an UPDATE
    same_rows_everywhere(table)
    assert maintain(MaintainSettings(table=table.url)).compacted_files > 1
    assert same_rows_everywhere(table) == ["/a", "/b", "/c", "/d", "/e"]
    maintain(MaintainSettings(table=table.url, delete_uri=("/a",)))
    assert same_rows_everywhere(table) == ["/b", "/c", "/d", "/e"]
    table.add_columns([pa.field("camera", pa.string())])
    table.append(rows.table(rows.ok("/f")).append_column("camera", pa.array(["east"])))
    assert same_rows_everywhere(table) == ["/b", "/c", "/d", "/e", "/f"]


def test_no_data_is_copied_and_nothing_is_done_twice(table, tmp_path, rows):
    first = register(table)
    assert (first.rows, first.files, first.added_files, first.removed_files) == (3, 2, 2, 0)
    assert not list((tmp_path / "warehouse").rglob("*.parquet"))
    again = register(table)
    assert (again.added_files, again.removed_files, again.metadata) == (0, 0, first.metadata)
    table.append(rows.table(rows.ok("/d")))
    third = register(table)
    assert (third.rows, third.added_files, third.version) == (4, 1, first.version + 1)
    assert len(load_catalog("shop").load_table(NAME).snapshots()) == 2


def test_files_whose_rows_the_log_does_not_count(table, monkeypatch):
    uncounted = [replace(file, num_rows=0) for file in iceberg.data_files(table)]
    monkeypatch.setattr(iceberg, "data_files", lambda table: uncounted)
    assert register(table).rows == 3


def test_a_registration_that_died_after_it_had_made_the_table_is_finished(table):
    catalog = load_catalog("shop")
    catalog.create_namespace("detections")
    catalog.create_table(NAME, table.schema, properties={iceberg.SOURCE: table.url})
    assert same_rows_everywhere(table) == ["/a", "/b", "/c"]
    assert [field.name for field in load_catalog("shop").load_table(NAME).spec().fields] == ["run_date"]


def test_an_empty_table(tmp_path, new_table):
    assert register(new_table(tmp_path / "empty")).rows == 0
    assert load_catalog("shop").load_table(NAME).scan().to_arrow().num_rows == 0


def test_names_and_catalogs_that_are_wrong(table, tmp_path, new_table, rows):
    register(table)
    other = new_table(tmp_path / "other", rows.ok("/x"))
    with pytest.raises(
        SettingError, match=r"name: 'detections.photos' mirrors the table '.*/table'; give another name"
    ):
        register(other)
    load_catalog("shop").create_table("detections.foreign", pa.schema([("a", pa.int64())]))
    with pytest.raises(SettingError, match=r"name: 'detections.foreign' was made by something else"):
        register(table, name="detections.foreign")
    with pytest.raises(
        SettingError, match=r"catalog: 'none' can't be opened; describe it in .*PYICEBERG_CATALOG__NONE__URI"
    ):
        register(table, catalog="none")
    with pytest.raises(SettingError, match="no table is there"):
        register(ResultTable(str(tmp_path / "nothing")))
    with pytest.raises(ValueError, match="give a namespace, a dot and a name"):
        register(table, name="photos")


def test_without_pyiceberg_the_command_says_what_to_install(table, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "pyiceberg"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    with pytest.raises(SettingError, match=r"pip install 'ssd-batch\[iceberg\]'"):
        register(table)


def test_the_command(table, capsys):
    command = ["iceberg", "register", "--table", table.url, "--name", NAME, "--catalog", "shop"]
    cli(command, standalone_mode=False)
    assert (
        "detections.photos: 3 rows in 2 files, as version 1 of the table (2 files added, 0 removed)"
        in capsys.readouterr().out
    )
    cli([*command, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["rows"] == 3
