"""A read-only DuckDB over the table, with the views that people query."""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from pipeline.errors import SettingError
from pipeline.sql import literal, names_of, no_rows
from pipeline.table.changes import Changes, changes_since
from pipeline.table.delta import ResultTable
from pipeline.table.read_only import name_below
from pipeline.table.results import RESULTS, connect
from pipeline.table.run_records import RUNS, read_records, run_files
from pipeline.table.schema import SCHEMA
from pipeline.table.versions import NO_VERSIONS, note_url, noted_versions

IS_PERMANENT = "error_stage = 'decode'"
"""The SQL condition of a failure that will not pass, because the bytes are at fault."""

BOX = '".box"'
"""The name of a box in the SQL of lambdas. No column of a table has it, as columns of folders have names of words."""
MESSAGE_ALIKE = """regexp_replace(coalesce(error_message, ''), '''[^'']*''|"[^"]*"|[0-9]+', '…', 'g')"""
"""The SQL of a failure's message with an ellipsis for quoted names and numbers: failures of one cause have the same."""

OWN_ERRORS = ("FileNotFoundError", "NotFoundError", "ChangedError", "TooLargeError", "ProcessKilled", "OutputError")
"""The types of failures that may pass, and that are the image's own: the image is tried `max_attempts` times.

All others are failures of its surroundings: storage, credentials, memory, a GPU. No number of them says anything about the image.
"""

VIEWS = {
    "history": f"SELECT * FROM {RESULTS}",
    "images": f"SELECT * FROM {RESULTS}",
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

`images` has the latest version of each image, and if that failed, also the latest that was ok: see `LATEST`. `history` has all versions.
`detections` has one row per box, `failures` has the failed images, and `runs` has one row per run.
"""
LATEST = f"""
    SELECT {RESULTS}.* FROM {RESULTS} LEFT JOIN versions
        ON {RESULTS}.uri = versions.uri AND {RESULTS}.model_digest = versions.model_digest
    WHERE versions.latest IS NULL OR {RESULTS}.etag IN (versions.latest, versions.latest_ok)
"""
"""The SQL of `images` in a table that has several rows of some image."""
OF_LATEST = {"images", "detections", "failures"}
"""The views that have only the latest versions."""

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


@contextmanager
def query(
    table: ResultTable, sql: str, limit_s: float | None = None, since_version: int = 0
) -> Iterator[duckdb.DuckDBPyRelation]:
    """Answer one SELECT over the views of `VIEWS`.

    No statement can write, or read anything but the table's own files. The answer is of the version that `table.delta` then has.

    Args:
        table: the table.
        sql: the statement.
        limit_s: the seconds after which the query is interrupted.
        since_version: the version of the table whose rows are left out. `runs` has all records.

    Raises:
        SettingError: there is no table, the SQL is wrong, or it is not one SELECT; or the table no longer has that version.
    """
    if not table.exists:
        raise SettingError(f"table {table.url!r}: no table is there; make one with `ssd-batch infer`")
    # DuckDB opens all files of a view when it makes the view. So views, and files of runs and images, are given only if asked for.
    named = set(WORD.findall(sql.lower())) & {*VIEWS, RESULTS}
    records = run_files(table) if "runs" in named else []
    files = table.data_files() if named - {"runs"} else []
    changes = changes_since(table, since_version, files) if files else Changes(())
    files = list(changes.files)
    note = note_url(table, files)
    with connect(table, [*records, note], files, changes.old_files) as db:
        _add_runs(db, table, records)
        versions = noted_versions(db, table, note) if files and named & OF_LATEST else NO_VERSIONS
        _add_views(db, table, named if files else set(VIEWS), versions)
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        try:
            with _interrupted_after(db, limit_s):
                yield db.sql(_one_select(db, sql))
        except duckdb.Error as error:
            raise SettingError(f"query: {error}") from error


@contextmanager
def _interrupted_after(db: duckdb.DuckDBPyConnection, limit_s: float | None) -> Iterator[None]:
    if limit_s is None:
        yield
        return
    timer = threading.Timer(limit_s, db.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def rows_of(table: ResultTable, sql: str) -> list[dict[str, Any]]:
    """Return the answer to a SELECT that has few rows, each as its values by column; raises as `query`."""
    with query(table, sql) as relation:
        rows: list[dict[str, Any]] = relation.to_arrow_table().to_pylist()
        return rows


def _add_runs(db: duckdb.DuckDBPyConnection, table: ResultTable, records: Sequence[str]) -> None:
    """Make the table `run_records` of the files that have the records of runs. It is no view, which would open all files each time."""
    if not records:
        db.execute(f"CREATE TABLE run_records AS {no_rows(RUNS)}")
        return
    names = ", ".join(literal(name_below(table.url, record)) for record in records)
    # The second part of each has the columns that came after all records were written. A record may be in two files while records are
    # folded; the one with an end is the later one.
    create = (
        f"CREATE TABLE run_records AS SELECT DISTINCT ON (run_id) {names_of(RUNS)} "
        f"FROM ({{records}} UNION ALL BY NAME {no_rows(RUNS)}) ORDER BY run_id, ended_at"
    )
    try:
        db.execute(create.format(records=f"FROM read_parquet([{names}], union_by_name = true)"))
    except duckdb.Error:  # a file was folded into another one since it was listed, or is damaged
        db.register("records_read", read_records(table))
        db.execute(create.format(records="FROM records_read"))


def _add_views(db: duckdb.DuckDBPyConnection, table: ResultTable, named: set[str], versions: str) -> None:
    """Make the named views, and `images` for those that are made of it.

    Args:
        db: a DuckDB with `results` and `run_records`.
        table: the table.
        named: the names of views.
        versions: the SQL of the latest versions, see `noted_versions`.
    """
    path_columns = [field for field in table.schema if field.name not in SCHEMA.names]
    columns = f"{names_of(path_columns)}," if path_columns else ""
    views = dict(VIEWS)
    if versions != NO_VERSIONS:
        db.execute(f"CREATE VIEW versions AS {versions}")
        views["images"] = LATEST
    for name, select in views.items():
        if name in named or (name == "images" and named & OF_LATEST):
            db.execute(f"CREATE VIEW {name} AS {select.format(path_columns=columns, is_permanent=IS_PERMANENT)}")


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
