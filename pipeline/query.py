"""SQL over the table: DuckDB with the views that people ask, read-only."""

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import s3, storage
from pipeline.errors import SettingError
from pipeline.runs import RUNS, run_files
from pipeline.table import SCHEMA, ResultTable

IS_PERMANENT = "error_stage = 'decode'"
"""A failure that will not pass: the bytes are at fault."""

VIEWS = {
    "history": "SELECT * FROM results",
    "images": """
        SELECT results.* FROM results LEFT JOIN (
            SELECT uri, model_digest, max_by(etag, processed_at) AS latest FROM results
            GROUP BY uri, model_digest HAVING count(*) > 1
        ) AS changed ON results.uri = changed.uri AND results.model_digest = changed.model_digest AND etag <> latest
        WHERE latest IS NULL
    """,
    "detections": """
        SELECT uri, etag, {path_columns} model_name, model_digest, run_id, run_date, width_px, height_px,
            unnest(detections, recursive := true)
        FROM images WHERE num_detections > 0
    """,
    "failures": """
        SELECT uri, etag, {path_columns} model_name, model_digest, run_id, run_date, processed_at, error_stage, error_type,
            error_message, num_attempts, {is_permanent} AS is_permanent
        FROM images WHERE status = 'failed'
    """,
    "runs": "SELECT * FROM run_records",
}
"""`images` has the latest version of each image, failed ones too; `history` all versions; `detections` a row a box;
`failures` what went wrong; `runs` a row a run."""


MEMORY_LIMIT = "1500MB"
"""Planning 10 million images against as many rows took as much CPU with it as with 2 GB, and a process of 1.8 GB without torch."""

BATCH_ROWS, MAX_FILE_ROWS = 65_536, 5_000_000


def literal(text: str) -> str:
    """A string as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _names(fields: Iterable[pa.Field]) -> str:
    return ", ".join(f'"{field.name}"' for field in fields)


@contextmanager
def bounded() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory that takes no more than `MEMORY_LIMIT`; what does not fit goes to temporary files."""
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET memory_limit = ?", [MEMORY_LIMIT])
        db.execute("SET temp_directory = ?", [str(Path(tempfile.gettempdir(), f"ssd-batch-duckdb-{os.getpid()}"))])
        yield db


@contextmanager
def connect(
    table: ResultTable, more_files: Sequence[str] = (), files: Sequence[str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB with the view `results`: the table's rows, whichever storage it lies on.

    Args:
        table: may be empty, or not there.
        more_files: what it may read beside.
        files: data files to take for the table's, instead of those of its current version.
    """
    files = table.data_files() if files is None else files
    with bounded() as db:
        if storage.is_s3(table.url):
            db.register_filesystem(s3.data_filesystem())
        db.execute("SET allowed_paths = ?", [[*files, *more_files]])
        if files:
            names = ", ".join(literal(file) for file in files)
            source = f"FROM read_parquet([{names}], hive_partitioning = true, union_by_name = true)"
            db.register("nothing", table.schema.empty_table())  # has the columns that came after a file was written
            db.execute(
                f"CREATE VIEW results AS SELECT {_names(table.schema)} FROM ({source} UNION ALL BY NAME FROM nothing)"
            )
        else:
            db.register("results", table.schema.empty_table())
        yield db


@contextmanager
def query(table: ResultTable, sql: str) -> Iterator[duckdb.DuckDBPyRelation]:
    """Answer one SELECT over the views of `VIEWS`.

    No statement can write, or read anything but the table's own files.

    Raises:
        SettingError: no table is there, the SQL is wrong, or it is not one SELECT.
    """
    if not table.exists:
        raise SettingError(f"table {table.url!r}: no table is there; make one with `ssd-batch infer`")
    # DuckDB opens all files of a view when the view is made: those of the runs only where they are asked for.
    records = run_files(table) if "runs" in sql.lower() else []
    with connect(table, records) as db:
        if records:
            db.register("no_records", RUNS.empty_table())  # has the columns that came after all records were written
            names = ", ".join(map(literal, records))
            source = f"FROM read_parquet([{names}], union_by_name = true) UNION ALL BY NAME FROM no_records"
            # A record may stand in two files while records are folded; the one with an end is the later.
            db.execute(
                f"CREATE VIEW run_records AS SELECT DISTINCT ON (run_id) {_names(RUNS)} FROM ({source}) ORDER BY run_id, ended_at"
            )
        else:
            db.register("run_records", RUNS.empty_table())
        path_columns = [field for field in table.schema if field.name not in SCHEMA.names]
        for name, select in VIEWS.items():
            columns = f"{_names(path_columns)}," if path_columns else ""
            db.execute(f"CREATE VIEW {name} AS {select.format(path_columns=columns, is_permanent=IS_PERMANENT)}")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        try:
            statements = db.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise SettingError("query takes one SELECT statement: tables are only read here")
            yield db.sql(statements[0].query)
        except duckdb.Error as error:
            raise SettingError(f"query: {error}") from error


def export_parquet(table: ResultTable, url: str) -> int:
    """Write `detections` as flat Parquet files, a row a box, into a new folder.

    Returns:
        The number of rows.

    Raises:
        SettingError: something is there already, or it can't be written.
    """
    url = storage.absolute(url).rstrip("/")
    fs, path = storage.filesystem(url)
    num_rows = 0
    try:
        if fs.exists(path) and fs.find(path):
            raise SettingError(f"output {url!r} is not empty; name a new folder")
        with query(table, "SELECT * FROM detections") as relation, tempfile.TemporaryDirectory() as folder:
            batches, local = relation.to_arrow_reader(BATCH_ROWS), Path(folder, "part.parquet")
            for number in itertools.count():
                part = itertools.islice(batches, MAX_FILE_ROWS // BATCH_ROWS)
                if not (num_written := _write_part(part, batches.schema, local)) and number:
                    break
                storage.put(local, f"{url}/part-{number}.parquet")
                num_rows += num_written
    except OSError as error:
        raise SettingError(f"output {url!r} can't be written: {error}") from error
    return num_rows


def _write_part(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    num_rows = 0
    with pq.ParquetWriter(path, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            num_rows += batch.num_rows
    return num_rows
