"""A read-only DuckDB over the table, with the views that people query."""

import itertools
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.sql import bounded, literal, no_rows
from pipeline.storage import store
from pipeline.table.delta import ResultTable, enclosing_table
from pipeline.table.read_only import ReadOnlyFiles, name_below
from pipeline.table.run_records import RUNS, run_files
from pipeline.table.schema import SCHEMA
from pipeline.urls import absolute

IS_PERMANENT = "error_stage = 'decode'"
"""The SQL condition of a failure that will not pass, because the bytes are at fault."""

OWN_ERRORS = ("FileNotFoundError", "NotFoundError", "ChangedError", "TooLargeError", "ProcessKilled", "OutputError")
"""The types of failures that may pass, and that are the image's own: the image is tried `max_attempts` times.

All others are failures of its surroundings: storage, credentials, memory, a GPU. No number of them says anything about the image.
"""

RESULTS = "results"
"""The view that the other views of images are made of."""
LATEST_ETAG = "max_by(etag, (run_id, processed_at))"
"""The SQL of the version that a run saw last, among the rows of one URI and model.

Runs are ordered by their ids, which begin with the time at which the driver began to list. The clocks of workers order only the
rows of one run.
"""
LATEST_OK = f"{LATEST_ETAG} FILTER (status = 'ok')"
"""The SQL of the version that a run saw last, among those that were ok. No failure hides it.

Such a failure may come from a list that lags, or from a file that was cut short since.
"""

VIEWS = {
    "history": "SELECT * FROM results",
    "images": f"""
        SELECT results.* FROM results LEFT JOIN (
            SELECT uri, model_digest, {LATEST_ETAG} AS latest, {LATEST_OK} AS latest_ok FROM results
            GROUP BY uri, model_digest HAVING count(*) > 1
        ) AS changed ON results.uri = changed.uri AND results.model_digest = changed.model_digest
        WHERE changed.latest IS NULL OR results.etag IN (changed.latest, changed.latest_ok)
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
"""The SQL of the views, by their names.

`images` has the latest version of each image, and if that failed, also the latest that was ok. `history` has all versions.
`detections` has one row per box, `failures` has the failed images, and `runs` has one row per run.
"""


BATCH_ROWS, MAX_FILE_ROWS = 65_536, 5_000_000

READING = {"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"}
"""The nodes of a parse tree that only read. A CTE may also have other bodies: COPY, INSERT, UPDATE and DELETE."""
WRITING = {
    "copy", "insert", "update", "delete", "merge", "create", "alter", "drop", "truncate", "attach", "detach", "install", "load",
    "export", "import", "call", "pragma", "set", "reset", "execute", "prepare",
}  # fmt: skip
"""The keywords that begin statements which do more than read."""
EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?", re.IGNORECASE)
WORD = re.compile(r"\w+")
SQL_FROM_TEXT = {"query", "json_execute_serialized_sql"}
"""The functions whose argument is SQL, which no parse tree shows."""


def _names(fields: Iterable[pa.Field]) -> str:
    return ", ".join(f'"{field.name}"' for field in fields)


@contextmanager
def connect(
    table: ResultTable, more_files: Sequence[str] = (), files: Sequence[str] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB with the view `results`: the table's rows, whatever its storage. It can write to none of the files.

    Args:
        table: the table, which may be empty, or not exist.
        more_files: other files that the DuckDB may read.
        files: the data files to read, instead of those of the table's current version.

    Raises:
        SsdBatchError: a data file can't be read.
    """
    files = table.data_files() if files is None else files
    with bounded() as db:
        db.register_filesystem(ReadOnlyFiles(table.url))
        db.execute("SET allowed_paths = ?", [[name_below(table.url, file) for file in (*files, *more_files)]])
        rows = no_rows(table.schema)
        if files:
            names = ", ".join(literal(name_below(table.url, file)) for file in files)
            source = f"FROM read_parquet([{names}], hive_partitioning = true, union_by_name = true)"
            # The second part has the columns that came after a file was written.
            rows = f"SELECT {_names(table.schema)} FROM ({source} UNION ALL BY NAME {rows})"
        try:
            db.execute(f"CREATE VIEW {RESULTS} AS {rows}")
        except duckdb.Error as error:
            raise SsdBatchError(f"table {table.url!r} can't be read: {reason(error)}") from error
        yield db


@contextmanager
def query(table: ResultTable, sql: str) -> Iterator[duckdb.DuckDBPyRelation]:
    """Answer one SELECT over the views of `VIEWS`.

    No statement can write, or read anything but the table's own files.

    Raises:
        SettingError: there is no table, the SQL is wrong, or it is not one SELECT.
    """
    if not table.exists:
        raise SettingError(f"table {table.url!r}: no table is there; make one with `ssd-batch infer`")
    # DuckDB opens all files of a view when it makes the view. So the files of runs, and of images, are given only if asked for.
    named = {name for name in (*VIEWS, RESULTS) if name in sql.lower()}
    records = run_files(table) if "runs" in named else []
    with connect(table, records, files=None if named - {"runs"} else []) as db:
        if records:
            names = ", ".join(literal(name_below(table.url, record)) for record in records)
            # The second part has the columns that came after all records were written.
            source = f"FROM read_parquet([{names}], union_by_name = true) UNION ALL BY NAME {no_rows(RUNS)}"
            # A record may be in two files while records are folded; the one with an end is the later one.
            db.execute(
                f"CREATE VIEW run_records AS SELECT DISTINCT ON (run_id) {_names(RUNS)} FROM ({source}) ORDER BY run_id, ended_at"
            )
        else:
            db.execute(f"CREATE VIEW run_records AS {no_rows(RUNS)}")
        path_columns = [field for field in table.schema if field.name not in SCHEMA.names]
        for name, select in VIEWS.items():
            columns = f"{_names(path_columns)}," if path_columns else ""
            db.execute(f"CREATE VIEW {name} AS {select.format(path_columns=columns, is_permanent=IS_PERMANENT)}")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        try:
            yield db.sql(_one_select(db, sql))
        except duckdb.Error as error:
            raise SettingError(f"query: {error}") from error


def _one_select(db: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Return the SQL, if it is one SELECT or the EXPLAIN of one.

    Raises:
        SettingError: it is another statement, or contains one, or takes SQL as text.
    """
    statements = db.extract_statements(sql)
    types = [statement.type for statement in statements]
    if types == [duckdb.StatementType.EXPLAIN] and (explain := EXPLAIN.match(sql)):
        return explain[0] + _one_select(db, sql[explain.end() :])
    if types not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.MULTI]):
        raise SettingError("query takes one SELECT statement: tables are only read here")
    select = statements[0].query
    if types == [duckdb.StatementType.SELECT]:
        writing, functions = _parts_of_tree(db, select)
    else:  # a PIVOT whose columns come from the data, for which DuckDB shows no tree
        writing, functions = _parts_of_text(select)
    if writing:
        raise SettingError(
            f"query takes one SELECT statement, and this holds another ({', '.join(sorted(writing))}): tables are only read here"
        )
    if from_text := functions & SQL_FROM_TEXT:
        raise SettingError(
            f"query takes no SQL as text, as {', '.join(sorted(from_text))} does; write it as a subquery"
        )
    return select


def _parts_of_tree(db: duckdb.DuckDBPyConnection, select: str) -> tuple[set[str], set[str]]:
    """Return the statements other than SELECT that a SELECT contains, and its functions, by its parse tree."""
    (tree,) = db.execute("SELECT json_serialize_sql(?)", [select]).fetchall()[0]
    found: set[str] = set()
    json.loads(tree, object_hook=lambda node: found.update(map(str, (node.get("type"), node.get("function_name")))))
    nodes = {name for name in found if name.endswith("_NODE")} - READING
    return {name.partition("_")[0] for name in nodes}, found


def _parts_of_text(select: str) -> tuple[set[str], set[str]]:
    """Return the statements other than SELECT that a SELECT contains, and its functions, by its words."""
    words = {
        (kind, match[0].lower())
        for start, kind in duckdb.tokenize(select)
        if (match := WORD.match(select.encode()[start:].decode(errors="ignore")))
    }
    keywords = {word for kind, word in words if kind == duckdb.token_type.keyword}
    return {word.upper() for word in keywords & WRITING}, {word for _, word in words}


def export_parquet(table: ResultTable, url: str) -> int:
    """Write `detections` as flat Parquet files, one row per box, into a new folder.

    Returns:
        The number of rows.

    Raises:
        SettingError: the folder is not empty, is inside of a table, or can't be written.
    """
    url = absolute(url).rstrip("/")
    fs, path = store.filesystem(url)
    num_rows = 0
    try:
        if fs.exists(path) and fs.find(path):
            raise SettingError(f"output {url!r} is not empty; name a new folder")
        if outer := enclosing_table(url):
            raise SettingError(f"output {url!r} would be inside the table {outer!r}; name a place outside of it")
        with query(table, "SELECT * FROM detections") as relation, tempfile.TemporaryDirectory() as folder:
            batches, local = relation.to_arrow_reader(BATCH_ROWS), Path(folder, "part.parquet")
            for number in itertools.count():
                part = itertools.islice(batches, MAX_FILE_ROWS // BATCH_ROWS)
                if not (num_written := _write_part(part, batches.schema, local)) and number:
                    break
                store.put(local, f"{url}/part-{number}.parquet")
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
