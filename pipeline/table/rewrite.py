"""Replacing data files by others with the same rows, sorted, or without some of them: one commit, or none.

What was read is replaced only while it is the table's: a commit names the files that it removes, and carries the next
transaction of `REWRITES`. Of two rewrites that overlap, delta-rs refuses the one whose view of the table is older; it then looks
whether its files are still there, and if they are, commits again. Killed anywhere, a rewrite leaves files that no log names, and
that vacuum removes.
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
from pipeline.storage import store
from pipeline.storage.table_files import PARTITION
from pipeline.table.delta import KEY, ResultTable
from pipeline.table.query import connect

Write = Callable[[CommitProperties | None], None]
"""Makes one commit of the table as it was seen last."""

COMMIT_ATTEMPTS = 10
BATCH_ROWS = 8192
ROW_GROUP_ROWS = 65_536
"""Readers skip row groups by the names in them; delta-rs by itself would make one of a whole file."""
MEMORY_LIMIT = "1GB"
"""Of the sorting, which then goes to disk: 3 million rows of 670 MB took 17 s and 2.3 GB in all, 11 s and 2.9 GB with twice as much."""
LONGEST_S = 24 * 3600.0
"""A rewrite that slept longer does not commit: vacuum may have removed what it wrote."""


EACH_KEY_ONCE = f"QUALIFY row_number() OVER (PARTITION BY {', '.join(KEY)} ORDER BY run_id DESC, processed_at DESC) = 1"
"""Of the rows with one key, the last run's."""


class StaleError(Exception):
    """Files to be replaced are not the table's any more: another rewrite was faster, and nothing was committed."""


@dataclass(frozen=True)
class DataFile:
    """A file of the table, as its log has it."""

    path: str
    """Below the table's own URL."""
    run_date: str | None
    size_bytes: int
    num_rows: int


def data_files(table: ResultTable) -> list[DataFile]:
    """The files of the table as it is now."""
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
        table: the files are its.
        files: of one partition, unless they are repaired.
        commit: calls what it is given, with what the commit shall carry: `Fence.commit`, or `unfenced`.
        target_bytes: of a new file.
        without: a column uri; the rows of these are left out.
        repair: of the rows with one key, leave out all but the last run's.

    Returns:
        The number of new files.

    Raises:
        StaleError: other files stand there by now.
        SsdBatchError: the files can't be read, or not as many rows were written as read; nothing was committed.
        OvertakenError: the fence's.
    """
    started, has_fewer_rows = time.time(), repair or without is not None
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
        try:
            num_rows = _write_sorted(table, files, target_bytes, without, repair, folder)
        except (duckdb.Error, pa.ArrowException, DeltaError, OSError, SsdBatchError) as error:
            table.refreshed()
            _check_current(_paths(table), files)  # perhaps one that was removed in the meantime
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
    """A Delta table in a folder of this machine, of the rows that the new files shall have: its files and log are used.

    Returns:
        How many rows that must be.
    """
    schema = table.stored_schema
    names = ", ".join(f'"{name}"' for name in schema.names)
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
    """The files that the first commit of a Delta table added, with their statistics."""
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
    """Commit that files stand in place of others.

    Args:
        table: as it was seen last; the commit is refused where another rewrite came after.
        removed: files of one table.
        added: files that lie there already.
        properties: what the commit carries, beside transactions of its own.
        is_deletion: rows are fewer now.

    Raises:
        StaleError: some of the removed files are not the table's any more.
        CommitFailedError: it was refused, or its answer was lost.
    """
    current = _paths(table)
    if added and current.issuperset(add.path for add in added):
        return  # it had landed, and its answer was lost
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
    """The files of the table as it was seen last."""
    return set(pa.table(table.delta.get_add_actions())["path"].to_pylist())


def _check_current(paths: set[str], files: list[DataFile]) -> None:
    if not paths.issuperset(file.path for file in files):
        raise StaleError


def unfenced(table: ResultTable) -> Callable[[Write], None]:
    """Committing without a hold on the table, beside a run that has one.

    Returns:
        A function that raises StaleError where other rewrites are faster again and again.
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
