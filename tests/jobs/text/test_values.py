"""What programs read of a query's answer."""

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import pyarrow as pa

from jobs.text.values import distinct, write_csv, write_json

ROWS = pa.table(
    {
        "uri": ["a,b.jpg", 'ü"'],
        "total": pa.array([Decimal(7), None], pa.decimal128(38, 0)),
        "price": [Decimal("1.50"), Decimal("2.25")],
        "score": [0.5, float("nan")],
        "at": pa.array([datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        "day": [date(2026, 1, 2), None],
        "boxes": [[{"label": "cat", "score": 0.25}], []],
        "raw": [b"\x01\xff", None],
    }
)


def test_json_is_an_array_of_rows_with_numbers_as_numbers() -> None:
    stream = io.StringIO()
    write_json(ROWS.to_reader(max_chunksize=1), stream)
    assert json.loads(stream.getvalue()) == [
        {
            "uri": "a,b.jpg", "total": 7, "price": 1.5, "score": 0.5, "at": "2026-01-02T03:04:05+00:00",
            "day": "2026-01-02", "boxes": [{"label": "cat", "score": 0.25}], "raw": "01ff",
        },
        {
            "uri": 'ü"', "total": None, "price": 2.25, "score": None, "at": None,
            "day": None, "boxes": [], "raw": None,
        },
    ]  # fmt: skip


def test_json_of_no_rows_is_an_empty_array() -> None:
    stream = io.StringIO()
    write_json(ROWS.slice(0, 0).to_reader(), stream)
    assert stream.getvalue() == "[]\n"


def test_csv_quotes_what_it_must() -> None:
    stream = io.StringIO()
    write_csv(ROWS.select(["uri", "total", "boxes"]).to_reader(), stream)
    assert stream.getvalue() == ('uri,total,boxes\n"a,b.jpg",7,"[{""label"": ""cat"", ""score"": 0.25}]"\n"ü""",,[]\n')


def test_columns_of_one_name_are_told_apart() -> None:
    """A header of four and rows of two would lose values."""
    names = ["uri", "uri", "n", "uri", "uri_1"]
    assert distinct(names) == ["uri", "uri_2", "n", "uri_3", "uri_1"]
    rows = pa.Table.from_arrays([pa.array([number]) for number in range(5)], names)
    stream = io.StringIO()
    write_csv(rows.to_reader(), stream)
    assert stream.getvalue() == "uri,uri_2,n,uri_3,uri_1\n0,1,2,3,4\n"
    stream = io.StringIO()
    write_json(rows.to_reader(), stream)
    assert json.loads(stream.getvalue()) == [{"uri": 0, "uri_2": 1, "n": 2, "uri_3": 3, "uri_1": 4}]


def test_maps_and_intervals_are_json() -> None:
    sql = """SELECT map {'a': 1, 'b': 2} AS m, map {1: [DATE '2026-01-02']} AS n, INTERVAL '14 months 3 days 4.5 seconds' AS i,
        INTERVAL 0 SECONDS AS zero, map {} AS none, INTERVAL '-90 minutes' AS before"""
    stream = io.StringIO()
    write_json(duckdb.sql(sql).to_arrow_reader(), stream)
    assert json.loads(stream.getvalue()) == [
        {
            "m": {"a": 1, "b": 2}, "n": {"1": ["2026-01-02"]}, "i": "P14M3DT4.5S", "zero": "PT0S", "none": {}, "before": "PT-5400S",
        }
    ]  # fmt: skip
