"""A DuckDB over the rows of a table. It reads the table's files and writes to none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb

from pipeline.errors import SsdBatchError, reason
from pipeline.sql import bounded, literal, names_of, no_rows
from pipeline.table.delta import ROW, ResultTable
from pipeline.table.read_only import ReadOnlyFiles, name_below

RESULTS = "results"
"""The view that the other views of images are made of."""


@contextmanager
def connect(
    table: ResultTable,
    more_files: Sequence[str] = (),
    files: Sequence[str] | None = None,
    old_files: Sequence[str] = (),
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB with the view `results`: the table's rows, whatever its storage. It can write to none of the files.

    Args:
        table: the table, which may be empty, or not exist.
        more_files: other files that the DuckDB may read.
        files: the data files to read, instead of those of the table's current version.
        old_files: data files whose rows are left out.

    Raises:
        SsdBatchError: a data file can't be read.
    """
    files = table.data_files() if files is None else files
    with bounded() as db:
        db.register_filesystem(ReadOnlyFiles(table.url))
        db.execute(
            "SET allowed_paths = ?", [[name_below(table.url, file) for file in (*files, *old_files, *more_files)]]
        )
        rows = no_rows(table.schema)
        if files:
            # The second part has the columns that came after a file was written.
            rows = f"SELECT {names_of(table.schema)} FROM ({_rows_of(table, files)} UNION ALL BY NAME {rows})"
        if old_files:
            rows = f"FROM ({rows}) ANTI JOIN ({_rows_of(table, old_files)}) USING ({', '.join(ROW)})"
        try:
            db.execute(f"CREATE VIEW {RESULTS} AS {rows}")
        except duckdb.Error as error:
            hint = "; maintain deletes what an old version had: since_version 0 gives all rows" if old_files else ""
            raise SsdBatchError(f"table {table.url!r} can't be read: {reason(error)}{hint}") from error
        yield db


def _rows_of(table: ResultTable, files: Sequence[str]) -> str:
    names = ", ".join(literal(name_below(table.url, file)) for file in files)
    return f"FROM read_parquet([{names}], hive_partitioning = true, union_by_name = true)"
