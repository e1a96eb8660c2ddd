"""Find the records of runs in a table."""

from typing import Any

from pipeline.errors import SettingError
from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import rows_of

Record = dict[str, Any]
"""A row of the view `runs`."""


def list_runs(table: ResultTable, limit: int) -> list[Record]:
    """Return the records of the last runs, the newest first; raises as `pipeline.table.query.query`."""
    return rows_of(table, f"FROM runs ORDER BY started_at DESC LIMIT {limit}")


def models_of(table: ResultTable) -> list[str]:
    """Return the digests of the models of which the table has results, the last one used first; raises as `pipeline.table.query.query`."""
    sql = "SELECT model_digest FROM runs WHERE ok > 0 GROUP BY model_digest ORDER BY max(started_at) DESC"
    return [row["model_digest"] for row in rows_of(table, sql)]


def find_run(table: ResultTable, beginning: str) -> Record:
    """Return the record of one run.

    Args:
        table: the table that the run wrote to.
        beginning: the beginning of its run_id, long enough that no other run has the same.

    Raises:
        SettingError: no run has this beginning, or several have.
    """
    found = rows_of(
        table, f"FROM runs WHERE starts_with(run_id, {literal(beginning)}) ORDER BY started_at DESC LIMIT 5"
    )
    if not found:
        raise SettingError(f"run {beginning!r}: table {table.url!r} has no record of it; see `ssd-batch runs`")
    if len(found) > 1:
        names = ", ".join(record["run_id"] for record in found)
        raise SettingError(f"run {beginning!r} is the beginning of several, such as {names}; give more of it")
    return found[0]
