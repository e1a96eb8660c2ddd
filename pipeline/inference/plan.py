"""The plan of a run, and the check that all of it was done.

The plan is the listing, less what the table already holds for this model.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from pipeline.errors import ReconciliationError
from pipeline.inference.path_columns import NONE, path_columns
from pipeline.inputs.manifest import LISTING
from pipeline.sql import identifier, literal
from pipeline.stages.rows import IS_FIRST
from pipeline.table.delta import ResultTable
from pipeline.table.query import IS_PERMANENT, OWN_ERRORS
from pipeline.table.results import connect
from pipeline.table.schema import IS_RETRY
from pipeline.table.versions import found_by_hash, note_url, noted_versions

DOUBLED = (
    "rows of the table have the key of another row, from another engine or from files that were copied back; "
    "ssd-batch maintain --repair removes them"
)
ITS_OWN = f"error_type IN ({', '.join(map(literal, OWN_ERRORS))})"
DAY = 8
"""The number of characters at the start of a run's id that are the date at which it began."""
WORK_GROUP_ROWS = 2048
"""The number of rows per row group in the file of planned images. A reader that wants some rows reads this many. DuckDB makes no
smaller row groups."""


@dataclass(frozen=True)
class Plan:
    """The counts of keys (uri, etag): listed = already_ok + already_failed + planned."""

    listed: int
    already_ok: int
    already_failed: int
    planned: int
    path_columns: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """The columns that come from the images' paths."""
    num_unfit: int = 0
    """The number of planned images whose path lacks one of these columns, or has another type there."""
    buckets: tuple[str, ...] = ()
    """The S3 buckets of the planned images."""
    planned_bytes: int | None = None
    """The bytes of the planned images; None where the size of an image is not known."""

    @property
    def already_done(self) -> int:
        """The number of keys that were detected, or failed for good, in an earlier run."""
        return self.already_ok + self.already_failed


def make_plan(
    listing: Path,
    table: ResultTable,
    model_digest: str,
    run_id: str,
    max_attempts: int,
    work: Path,
    path_columns_setting: str = NONE,
    retried_stages: Collection[str] = (),
) -> Plan:
    """Anti-join a listing with the table, and write the rows that are left.

    A key is done when it is the latest version of its URI in the table, and one of these holds:

    - Its row is ok.
    - Its image could not be decoded; the same bytes never will be.
    - Its image has failed on `max_attempts` days, with an error that is the image's own (`OWN_ERRORS`).

    An earlier version that has come back is planned again, and its new row replaces the old one. Where the listing itself has
    several versions of a URI, each may be done.

    Runs that begin on the same day (UTC) count as one attempt. Failures of a run with too many failures count as no attempt.

    Args:
        listing: the Parquet file that `list_inputs` wrote.
        table: the results so far.
        model_digest: the digest of the model whose results count.
        run_id: the id of the run that is planned.
        max_attempts: the number of days on which an image is tried that fails with an error of its own.
        work: the Parquet file to write. It has the listing's columns, `IS_RETRY`, `IS_FIRST`, the path's columns, and num_attempts,
            which counts this attempt.
        path_columns_setting: a template, `hive` or `none`.
        retried_stages: the stages whose failures are planned again, whatever the failures were.

    Raises:
        SettingError: no path fits the template.
        ReconciliationError: the table holds a listed key more than once.
    """
    source, model = f"read_parquet({literal(str(listing))})", literal(model_digest)
    stages, today = ", ".join(map(literal, retried_stages)), literal(run_id[:DAY])
    # A view, because DuckDB would keep all rows of a CTE that is named twice.
    known = f"""
        CREATE TEMP VIEW known AS SELECT uri, etag, run_id, processed_at, status,
            num_attempts = 0 AS is_first, greatest(1, num_attempts + (left(run_id, {DAY}) <> {today})::INTEGER) AS next_attempt,
            status = 'ok' OR (
                NOT list_contains([{stages}]::VARCHAR[], error_stage)
                AND num_attempts >= CASE WHEN {IS_PERMANENT} THEN 1 WHEN {ITS_OWN} THEN {max_attempts} END
            ) AS is_done
        FROM results WHERE model_digest = {model}
    """
    files = table.data_files()
    note = note_url(table, files)
    with connect(table, [note], files) as db:
        db.execute(known)
        versions = noted_versions(db, table, note, search=found_by_hash(f"model_digest = {model}"))
        db.execute(
            f"""CREATE TEMP TABLE latest AS WITH versions AS MATERIALIZED ({versions})
            SELECT uri, latest AS etag FROM versions WHERE model_digest = {model}
                AND uri NOT IN (SELECT uri FROM {source} SEMI JOIN versions USING (uri) GROUP BY ALL HAVING count(*) > 1)"""
        )
        # Of a key that is done, nothing but the status is kept.
        columns_left = ", ".join(f"CASE WHEN NOT is_done THEN {name} END AS {name}" for name in LISTING.names)
        db.execute(
            f"""CREATE TEMP TABLE judged AS SELECT {columns_left}, * EXCLUDE ({", ".join(LISTING.names)}) FROM (
                SELECT listed.*, coalesce(next_attempt, 1)::INTEGER AS num_attempts, status IS NOT NULL AS "{IS_RETRY}",
                    coalesce(is_first, true) AS "{IS_FIRST}", status,
                    coalesce(is_done AND coalesce(latest.etag = listed.etag, true), false) AS is_done
                FROM {source} AS listed LEFT JOIN known USING (uri, etag) LEFT JOIN latest ON latest.uri = listed.uri
            )"""
        )
        columns = path_columns(db, source, path_columns_setting, table.schema)
        texts = "".join(f", {column.value} AS {identifier(column.name)}" for column in columns)
        left = f"SELECT * EXCLUDE (status, is_done){texts} FROM judged WHERE NOT is_done"
        db.execute(f"COPY ({left}) TO {literal(str(work))} (FORMAT parquet, ROW_GROUP_SIZE {WORK_GROUP_ROWS})")
        listed, num_judged, already_ok, already_failed, planned = db.execute(
            f"""SELECT (SELECT count(*) FROM {source}), count(*), count(*) FILTER (is_done AND status = 'ok'),
                count(*) FILTER (is_done AND status <> 'ok'), count(*) FILTER (NOT is_done) FROM judged"""
        ).fetchall()[0]
        if num_judged > listed:
            raise ReconciliationError(f"{num_judged - listed:,} {DOUBLED}")
        is_unfit = " OR ".join(f"{identifier(column.name)} IS NULL" for column in columns) or "false"
        num_unfit, buckets, planned_bytes = db.execute(
            f"""SELECT count(*) FILTER ({is_unfit}), list(DISTINCT string_split(uri, '/')[3]) FILTER (uri LIKE 's3://%'),
                CASE WHEN count(size_bytes) = count(*) THEN coalesce(sum(size_bytes), 0) END::BIGINT
            FROM read_parquet({literal(str(work))})"""
        ).fetchall()[0]
    schema = pa.schema([(column.name, column.type) for column in columns])
    return Plan(
        listed,
        already_ok,
        already_failed,
        planned,
        schema,
        num_unfit,
        tuple(sorted(buckets or ())),
        planned_bytes,
    )


@dataclass(frozen=True)
class Tally:
    """The number of rows that the table holds for the keys of a plan, by status."""

    ok: int
    failed: int
    missing: int
    """The number of keys without a row."""
    doubled: int
    """The number of rows beyond one row per key."""


def tally(listing: Path, table: ResultTable, model_digest: str) -> Tally:
    """Count the rows of a listing's keys in the table as it is now.

    Args:
        listing: the listing that the plan was made from, as a Parquet file.
        table: the results at the end of the run.
        model_digest: the digest of the model whose results count.
    """
    with connect(table) as db:
        counts = db.execute(
            f"""
            WITH keys AS (SELECT uri, etag FROM read_parquet({literal(str(listing))})),
            known AS (SELECT uri, etag, status FROM results WHERE model_digest = {literal(model_digest)})
            SELECT count(*) FILTER (status = 'ok'), count(*) FILTER (status = 'failed'),
                count(*) FILTER (status IS NULL), count(*) - (SELECT count(*) FROM keys)
            FROM keys LEFT JOIN known USING (uri, etag)
            """
        ).fetchall()[0]
    return Tally(*counts)


def reconcile(plan: Plan, ok: int, failed: int, found: Tally) -> None:
    """Check a run against the table: each listed key has one row, and each status has as many rows as were counted.

    Args:
        plan: the plan that was made at the start.
        ok: the number of images that the run detected.
        failed: the number of images that the run could not detect.
        found: the counts in the table at the end.

    Raises:
        ReconciliationError: rows are missing, doubled, or have another status.
    """
    expected = Tally(plan.already_ok + ok, plan.already_failed + failed, missing=0, doubled=0)
    if found.doubled:
        raise ReconciliationError(f"{found.doubled:,} {DOUBLED}")
    if found != expected:
        raise ReconciliationError(
            f"the table holds {found} of the planned keys and those already done, expected {expected}; run it again"
        )
