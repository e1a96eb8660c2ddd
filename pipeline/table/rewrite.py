"""Replace data files by others with the same rows, sorted, or without some of them: one commit, or none.

Files that were read are replaced only while they are the table's. A commit names the files that it removes, and carries the
next transaction of `REWRITES`. If two rewrites overlap, delta-rs refuses the one whose view of the table is older. That rewrite
then checks whether its files are still the table's, and if they are, commits again.

A rewrite that is killed anywhere leaves files that no log names. Vacuum removes them.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from pipeline.errors import SsdBatchError, reason
from pipeline.sql import names_of
from pipeline.storage import store
from pipeline.storage.table_files import PARTITION
from pipeline.table.delta import KEY, ResultTable
from pipeline.table.results import connect

Write = Callable[[CommitProperties | None], None]
"""A function that makes one commit to the table as it was last read."""

COMMIT_ATTEMPTS = 10
BATCH_ROWS = 8192
ROW_GROUP_ROWS = 65_536
"""The most rows in a row group. Readers skip row groups by the names in them; by default, delta-rs makes one of a whole file."""
MEMORY_LIMIT = "1GB"
"""The memory for sorting, which uses the disk beyond it. 3 million rows of 670 MB took 17 s and 2.3 GB in all.

With twice the memory, they took 11 s and 2.9 GB.
"""
LONGEST_S = 24 * 3600.0
"""The seconds after which a rewrite no longer commits. If it slept for longer, vacuum may have removed the files that it wrote."""


EACH_KEY_ONCE = f"QUALIFY row_number() OVER (PARTITION BY {', '.join(KEY)} ORDER BY run_id DESC, processed_at DESC) = 1"
"""The SQL clause that keeps one row per key: the last run's."""


class StaleError(Exception):
    """The files to replace are no longer the table's: another rewrite was faster, and nothing was committed."""


@dataclass(frozen=True)
class DataFile:
    """A data file of the table, as the table's log describes it."""

    path: str
    """The path below the table's own URL."""
    run_date: str | None
    size_bytes: int
    num_rows: int


def data_files(table: ResultTable) -> list[DataFile]:
    """Return the data files of the table as it is now."""
    actions = pa.table(table.refreshed().get_add_actions(flatten=True))
    if not actions.num_rows:
        return []
    run_dates = actions[f"partition.{PARTITION}"].cast(pa.string())
    columns = (actions["path"], run_dates, actions["size_bytes"], actions["num_records"].fill_null(0))
    return [DataFile(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]


def rewrite(
    table: ResultTable,
    files: list[DataFile],
    commit: Callable[[Write], None],
    target_bytes: int,
    without: pa.Table | None = None,
    repair: bool = False,
) -> int:
    """Replace files by new ones, sorted by uri.

    Args:
        table: the table that the files belong to.
        files: the files to replace, of one partition unless they are repaired.
        commit: calls the function that it is given with the properties of the commit: `Fence.commit`, or from `unfenced`.
        target_bytes: the size of a new file.
        without: a table with a column uri; the rows of these images are left out.
        repair: keep only the last run's row of each key.

    Returns:
        The number of new files.

    Raises:
        StaleError: the files are no longer the table's.
        SsdBatchError: the files can't be read, or not as many rows were written as read; nothing was committed.
        OvertakenError: another run holds the table now, as `Fence.commit` reports; nothing was committed.
    """
    started, has_fewer_rows = time.time(), repair or without is not None
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
        try:
            num_rows = _write_sorted(table, files, target_bytes, without, repair, folder)
        except (duckdb.Error, pa.ArrowException, DeltaError, OSError, SsdBatchError) as error:
            table.refreshed()
            _check_current(_paths(table), files)  # perhaps a file was removed in the meantime
            raise SsdBatchError(f"table {table.url!r} can't be rewritten: {reason(error)}") from error
        adds = _adds(folder)
        num_written = sum(json.loads(add["stats"])["numRecords"] for add in adds)
        if num_written != num_rows:
            raise SsdBatchError(
                f"table {table.url!r}: of {num_rows:,} rows {num_written:,} were written; nothing changed"
            )
        added = [_uploaded(table, folder, add, has_fewer_rows) for add in adds]
    if time.time() - started > LONGEST_S:
        raise StaleError
    commit(lambda properties: swap(table, files, added, properties, is_deletion=has_fewer_rows))
    return len(added)


def _write_sorted(
    table: ResultTable, files: list[DataFile], target_bytes: int, without: pa.Table | None, repair: bool, folder: str
) -> int:
    """Write a Delta table of the rows that the new files shall have, in a folder of this machine. Its files and log are used.

    Returns:
        The number of rows that the files must have.
    """
    schema = table.stored_schema
    names = names_of(schema)
    with connect(table, files=[f"{table.url}/{file.path}" for file in files]) as db:
        db.execute("SET memory_limit = ?", [MEMORY_LIMIT])
        db.register("without_uris", pa.table({"uri": pa.array([], pa.string())}) if without is None else without)
        kept = f"FROM (FROM results ANTI JOIN without_uris USING (uri) {EACH_KEY_ONCE if repair else ''})"
        (num_rows,) = db.execute(f"SELECT count(*) {kept}").fetchall()[0]
        rows = db.sql(f"SELECT {names} {kept} ORDER BY uri, processed_at")
        batches = (batch.cast(schema) for batch in rows.to_arrow_reader(BATCH_ROWS))
        write_deltalake(
            folder,
            pa.RecordBatchReader.from_batches(schema, batches),
            partition_by=[PARTITION],
            target_file_size=target_bytes,
            writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=ROW_GROUP_ROWS),
        )
    return int(num_rows)


def _adds(folder: str) -> list[dict[str, Any]]:
    """Return the files that the first commit of a Delta table added, with their statistics."""
    log = Path(folder, "_delta_log", f"{0:020}.json").read_text()
    return [action["add"] for action in map(json.loads, log.splitlines()) if "add" in action]


def _uploaded(table: ResultTable, folder: str, add: dict[str, Any], data_change: bool) -> AddAction:
    path = add["path"]
    store.put(Path(folder, path), f"{table.url}/{path}")
    return AddAction(
        path, add["size"], add["partitionValues"], add["modificationTime"], data_change=data_change, stats=add["stats"]
    )


def swap(
    table: ResultTable,
    removed: list[DataFile],
    added: list[AddAction],
    properties: CommitProperties | None,
    is_deletion: bool,
) -> None:
    """Replace files by others in one commit.

    Args:
        table: the table as it was last read; the commit is refused if another rewrite came after.
        removed: the files to remove, of one table.
        added: the files to add, which are stored already.
        properties: the properties that the commit carries, next to transactions of its own.
        is_deletion: whether there are fewer rows afterwards.

    Raises:
        StaleError: some of the removed files are no longer the table's.
        CommitFailedError: the commit was refused, or its answer was lost.
    """
    current = _paths(table)
    if added and current.issuperset(add.path for add in added):
        return  # the commit had landed, and its answer was lost
    _check_current(current, removed)
    now_ms = int(time.time() * 1000)
    removes = [
        RemoveAction(file.path, is_deletion, now_ms, file.size_bytes, {PARTITION: file.run_date}) for file in removed
    ]
    table.delta.create_write_transaction(
        [*added, *removes],
        "append",
        table.delta.schema(),
        partition_by=[PARTITION],
        commit_properties=table.rewriting(properties),
    )


def _paths(table: ResultTable) -> set[str]:
    """Return the paths of the data files of the table as it was last read."""
    return set(pa.table(table.delta.get_add_actions())["path"].to_pylist())


def _check_current(paths: set[str], files: list[DataFile]) -> None:
    if not paths.issuperset(file.path for file in files):
        raise StaleError


def unfenced(table: ResultTable) -> Callable[[Write], None]:
    """Make a function that commits without a hold on the table, next to a run that has one.

    Returns:
        A function that raises StaleError if other rewrites are faster again and again.
    """

    def commit(write: Write) -> None:
        for _ in range(COMMIT_ATTEMPTS):
            table.refreshed()
            try:
                write(None)
            except CommitFailedError:
                continue
            return
        raise StaleError

    return commit
