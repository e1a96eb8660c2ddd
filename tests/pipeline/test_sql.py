import duckdb
import pyarrow as pa
import pytest

from pipeline.sql import literal, no_rows
from pipeline.table.run_records import RUNS
from pipeline.table.schema import SCHEMA

OTHER = pa.schema(
    [
        ("a map", pa.map_(pa.string(), pa.int16())),
        ("decimal", pa.decimal128(12, 3)),
        ("local_time", pa.timestamp("us")),
        ("lists", pa.list_(pa.list_(pa.bool_()))),
        ("content", pa.binary()),
    ]
)


@pytest.mark.parametrize("schema", [SCHEMA, RUNS, OTHER], ids=["images", "runs", "a newer version's"])
def test_columns_without_rows_are_those_that_duckdb_takes_of_arrow(schema: pa.Schema) -> None:
    of_arrow, of_sql = duckdb.from_arrow(schema.empty_table()), duckdb.sql(no_rows(schema))
    assert (of_sql.columns, of_sql.types) == (of_arrow.columns, of_arrow.types)
    assert of_sql.fetchall() == []


def test_a_string() -> None:
    text = literal("it's")
    assert duckdb.sql(f"SELECT {text}").fetchall() == [("it's",)]
