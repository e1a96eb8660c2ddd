"""Maintain the table: make fewer and larger files, remove old versions, and delete the rows of images that must be forgotten."""

import logging
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from pipeline.errors import SettingError, SsdBatchError, ended_by, reason
from pipeline.inputs.manifest import read_uris
from pipeline.sql import literal
from pipeline.storage import store
from pipeline.storage.table_files import DATA_FILE, WORK_FOLDER
from pipeline.table.commit import Committer
from pipeline.table.delta import KEY, ResultTable
from pipeline.table.fence import Fence, last_holder
from pipeline.table.groups import groups, small_files
from pipeline.table.read_only import name_below
from pipeline.table.results import connect
from pipeline.table.rewrite import DataFile, StaleError, data_files, rewrite, swap, unfenced
from pipeline.table.run_records import delete_records, fold_records
from pipeline.table.settings import MaintainSettings
from pipeline.table.versions import NOTE_FILE, note_url, note_versions
from pipeline.urls import absolute

logger = logging.getLogger(__name__)

ATTEMPTS = 10
"""The number of attempts at a deletion or repair that other rewrites keep overtaking."""
DELETION_INTERVAL_S = 60.0
"""The seconds between heartbeats of a deletion or repair."""
NUM_DELETE_THREADS = 16
OWN_FILE = re.compile(DATA_FILE)
WORKING_FILE = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.parquet")


@dataclass
class Maintained:
    """The work that was done, or with a dry run, the work that would be done."""

    table: str
    deleted_rows: int = 0
    deleted_runs: int = 0
    repaired_rows: int = 0
    """The number of rows beyond one per key, which were removed."""
    compacted_files: int = 0
    left_files: int = 0
    """The number of small files left alone, because a run replaced rows in them again and again. The next call takes them."""
    folded_runs: int = 0
    vacuumed_files: int = 0
    num_files: int = 0
    size_bytes: int = 0
    wall_s: float = 0.0


def maintain(settings: MaintainSettings) -> Maintained:
    """Delete and repair as the settings ask, compact, fold the records of runs, vacuum, and write a checkpoint of the log.

    Raises:
        SettingError: there is no table, a manifest can't be read, or the store can't keep two writers apart; nothing was done.
        HeldError: rows are to be deleted or repaired, and a live run holds the table.
        OvertakenError: a run has taken the table over in the middle of that; the same command does the rest.
    """
    started, begun = time.monotonic(), datetime.now(UTC)
    table = ResultTable(settings.table)
    if not table.exists:
        raise SettingError(f"table {table.url!r}: no table is there; make one with `ssd-batch infer`")
    uris = _forgotten(settings)
    done = Maintained(table.url)
    if not settings.dry_run:
        store.check_creates_once(f"{table.url}/{WORK_FOLDER}")
    try:
        if settings.deletes:
            _delete(table, settings, uris, done)
        if settings.repair:
            _repair(table, settings, done)
        _compact(table, settings, done)
        _tidy(table, settings, begun, done)
    except (OSError, DeltaError, duckdb.Error) as error:
        raise ended_by(f"table {table.url!r}", error) from error
    files = data_files(table)
    done.num_files, done.size_bytes = len(files), sum(file.size_bytes for file in files)
    done.wall_s = round(time.monotonic() - started, 3)
    return done


def _forgotten(settings: MaintainSettings) -> pa.Table:
    """Return the images to delete, as a column uri, spelled as in the table of results."""
    uris = [absolute(uri) for uri in settings.delete_uri]
    if settings.delete_uris:
        try:
            uris += read_uris(absolute(settings.delete_uris))
        except (OSError, pa.ArrowException) as error:
            raise SettingError(f"delete_uris {settings.delete_uris!r} can't be read: {reason(error)}") from error
    return pa.table({"uri": pa.array(uris, pa.string())})


def _delete(table: ResultTable, settings: MaintainSettings, uris: pa.Table, done: Maintained) -> None:
    """Delete rows while holding the table, because a live run could add them again."""
    if settings.dry_run:
        done.deleted_rows = sum(file.num_rows for file in _old(table, settings))
        done.deleted_rows += sum(num for _, num in _holding(table, settings, uris))
        if settings.delete_before:
            done.deleted_runs = delete_records(table, settings.delete_before, dry_run=True)
        return
    with _held(table) as fence:
        for _ in range(ATTEMPTS):
            try:
                _delete_old(table, settings, fence, done)
                _delete_uris(table, settings, fence, uris, done)
                break
            except StaleError:
                continue
        else:
            raise SsdBatchError(
                f"table {table.url!r}: others rewrote what was to be deleted, again and again; try later"
            )
        if settings.delete_before:
            done.deleted_runs = delete_records(table, settings.delete_before)
        if settings.erase:
            # Not a full vacuum: a file that no log names yet may belong to a compaction that is about to be committed.
            erased = table.refreshed().vacuum(0, dry_run=False, enforce_retention_duration=False, full=False)
            done.vacuumed_files = len(erased)


@contextmanager
def _held(table: ResultTable) -> Iterator[Fence]:
    """Hold the table, with heartbeats while files are rewritten."""
    run_id = f"maintain-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    fence = Fence(table, run_id, DELETION_INTERVAL_S)
    with fence.held(), Committer(table, fence, DELETION_INTERVAL_S):
        yield fence


def _repair(table: ResultTable, settings: MaintainSettings, done: Maintained) -> None:
    """Remove the rows beyond one per key, in one commit, while holding the table.

    A run never writes such rows. They come from other engines, and from files that were copied back.
    """
    if settings.dry_run:
        done.repaired_rows = _doubled(table)[1]
        return
    with _held(table) as fence:
        for _ in range(ATTEMPTS):
            files, done.repaired_rows = _doubled(table)
            if not files:
                return
            with suppress(StaleError):
                rewrite(table, files, fence.commit, settings.target_bytes, repair=True)
                return
    raise SsdBatchError(f"table {table.url!r}: others rewrote what was to be repaired, again and again; try later")


def _doubled(table: ResultTable) -> tuple[list[DataFile], int]:
    """Return the files that have rows with the key of another row, and the number of rows beyond one per key."""
    files = {name_below(table.url, f"{table.url}/{file.path}"): file for file in data_files(table)}
    if not files:
        return [], 0
    key, names = ", ".join(KEY), ", ".join(map(literal, files))
    with connect(table) as db:
        db.execute(
            f"CREATE TEMP TABLE doubled AS SELECT hash({key}) AS key, count(*) AS n FROM results GROUP BY 1 HAVING n > 1"
        )
        held_by = db.execute(
            f"""SELECT DISTINCT ".file" FROM read_parquet([{names}], filename = '.file', union_by_name = true)
            WHERE hash({key}) IN (SELECT key FROM doubled) ORDER BY 1"""
        ).fetchall()
        ((num_beyond,),) = db.execute("SELECT coalesce(sum(n - 1), 0)::BIGINT FROM doubled").fetchall()
    return [files[name] for (name,) in held_by], num_beyond


def _old(table: ResultTable, settings: MaintainSettings) -> list[DataFile]:
    """Return the files of runs before the date `delete_before`."""
    before = settings.delete_before
    return [file for file in data_files(table) if before and file.run_date and file.run_date < before.isoformat()]


def _delete_old(table: ResultTable, settings: MaintainSettings, fence: Fence, done: Maintained) -> None:
    if files := _old(table, settings):
        fence.commit(lambda properties: swap(table, files, [], properties, is_deletion=True))
        done.deleted_rows += sum(file.num_rows for file in files)


def _holding(table: ResultTable, settings: MaintainSettings, uris: pa.Table) -> Iterator[tuple[DataFile, int]]:
    """Yield the files that have rows of these images, and the number of these rows. Files that are deleted as a whole are left out."""
    old = {file.path for file in _old(table, settings)}
    files = {f"{table.url}/{file.path}": file for file in data_files(table) if file.path not in old}
    named = {name_below(table.url, url): file for url, file in files.items()}
    if not files or not uris.num_rows:
        return
    names = ", ".join(map(literal, named))
    with connect(table, files=list(files)) as db:
        db.register("uris", uris)
        found = db.execute(
            f"""SELECT ".file", count(*) FROM read_parquet([{names}], filename = '.file', union_by_name = true)
            SEMI JOIN uris USING (uri) GROUP BY ALL"""
        ).fetchall()
    yield from ((named[name], num_rows) for name, num_rows in found)


def _delete_uris(
    table: ResultTable, settings: MaintainSettings, fence: Fence, uris: pa.Table, done: Maintained
) -> None:
    num_rows = {file.path: (file, num) for file, num in _holding(table, settings, uris)}
    for group in groups([file for file, _ in num_rows.values()], settings.target_bytes):
        rewrite(table, group, fence.commit, settings.target_bytes, without=uris)
        done.deleted_rows += sum(num_rows[file.path][1] for file in group)


def _compact(table: ResultTable, settings: MaintainSettings, done: Maintained) -> None:
    for group in small_files(data_files(table), settings.target_bytes):
        if settings.dry_run:
            done.compacted_files += len(group)
            continue
        try:
            num_new = rewrite(table, group, unfenced(table), settings.target_bytes)
        except StaleError:
            done.left_files += len(group)
            continue
        done.compacted_files += len(group)
        logger.info("run_date %s: %d files became %d", group[0].run_date, len(group), num_new)


def _tidy(table: ResultTable, settings: MaintainSettings, begun: datetime, done: Maintained) -> None:
    """Vacuum files that no version within the retention needs, fold the records of runs, and clean up the log."""
    done.vacuumed_files += _vacuum(table, settings)
    if settings.dry_run:
        return
    done.folded_runs = fold_records(table)
    note_versions(table)
    _delete_working_files(table, settings, begun)
    delta = table.refreshed()
    delta.create_checkpoint()
    delta.cleanup_metadata()


def _vacuum(table: ResultTable, settings: MaintainSettings) -> int:
    """Delete old data files that no version within the retention has. Return their number, which a dry run only counts.

    A killed writer leaves files that no log names. They are recognised by their names, so that other files below a table stay.
    """
    delta = table.refreshed()
    removed = set(delta.vacuum(settings.retention_hours, dry_run=True, full=False))
    left = {
        name for name in delta.vacuum(settings.retention_hours, dry_run=True, full=True) if OWN_FILE.fullmatch(name)
    }
    if not settings.dry_run:
        delta.vacuum(settings.retention_hours, dry_run=False, full=False)
        with ThreadPoolExecutor(NUM_DELETE_THREADS) as threads:
            list(threads.map(lambda name: store.delete(f"{table.url}/{name}"), left - removed))
    return len(removed | left)


def _delete_working_files(table: ResultTable, settings: MaintainSettings, begun: datetime) -> None:
    """Delete old files in the table's work folder that name images: the plans of killed runs, and notes on former data files.

    An erasure deletes these at once. The plan of the run that holds the table stays, however old it is.
    """
    kept = {note_url(table, table.data_files())}
    if (holder := last_holder(table)) and not holder.is_released:
        kept.add(table.working_url(f"{holder.run_id}.parquet"))
    try:
        left = [entry for page in store.walk(f"{table.url}/{WORK_FOLDER}/") for entry in page]
    except FileNotFoundError:
        return
    for entry in left:
        folder, _, name = entry.uri.rpartition("/")
        age = begun - (entry.last_modified or begun)
        is_old = age > timedelta(hours=settings.retention_hours)
        is_note, is_plan = bool(NOTE_FILE.fullmatch(name)), bool(WORKING_FILE.fullmatch(name))
        # A plan that came since then may be that of a run whose hold is not seen yet.
        is_erased = settings.erase and (is_note or (is_plan and age > timedelta(0)))
        is_unneeded = is_erased or (is_old and (is_note or is_plan))
        if is_unneeded and entry.uri not in kept and folder == f"{table.url}/{WORK_FOLDER}":
            store.delete(entry.uri)
