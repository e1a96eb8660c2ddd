"""Write SQL as text, and open a DuckDB whose memory is bounded."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

MEMORY_LIMIT = "1500MB"
"""The memory limit of a DuckDB. Planning 10 million images against as many rows took as much CPU with it as with 2 GB.

The process then took 1.8 GB without torch.
"""

SQL_TYPES = {
    "bool": "BOOLEAN", "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "float": "FLOAT",
    "double": "DOUBLE", "string": "VARCHAR", "large_string": "VARCHAR", "string_view": "VARCHAR", "binary": "BLOB",
    "large_binary": "BLOB", "binary_view": "BLOB", "date32[day]": "DATE",
}  # fmt: skip
"""The names that DuckDB has for Arrow's types. Other types are made of these."""


def literal(text: str) -> str:
    """Return a string as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(text: str) -> str:
    """Return the name of a column as SQL. The names of a table's columns may be anything, also what someone else made up."""
    return '"' + text.replace('"', '""') + '"'


def names_of(fields: Iterable[pa.Field]) -> str:
    """Return the names of columns as a list in SQL."""
    return ", ".join(identifier(field.name) for field in fields)


def no_rows(schema: pa.Schema) -> str:
    """Return a SELECT that has these columns and no row. Handing DuckDB an empty Arrow table instead would import pandas."""
    columns = (f"NULL::{_sql_type(field.type)} AS {identifier(field.name)}" for field in schema)
    return f"SELECT {', '.join(columns)} WHERE false"


def _sql_type(arrow: pa.DataType) -> str:
    if pa.types.is_struct(arrow):
        fields = ", ".join(f"{identifier(field.name)} {_sql_type(field.type)}" for field in arrow)
        return f"STRUCT({fields})"
    if pa.types.is_map(arrow):
        return f"MAP({_sql_type(arrow.key_type)}, {_sql_type(arrow.item_type)})"
    if pa.types.is_nested(arrow):
        return f"{_sql_type(arrow.value_type)}[]"
    if pa.types.is_timestamp(arrow):
        return "TIMESTAMP WITH TIME ZONE" if arrow.tz else "TIMESTAMP"
    if pa.types.is_decimal(arrow):
        return f"DECIMAL({arrow.precision}, {arrow.scale})"
    return SQL_TYPES[str(arrow)]


@contextmanager
def bounded() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB in memory that takes no more than `MEMORY_LIMIT`. Data that does not fit goes to a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="ssd-batch-duckdb-") as spilled, duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET memory_limit = ?", [MEMORY_LIMIT])
        db.execute("SET temp_directory = ?", [spilled])
        yield db
