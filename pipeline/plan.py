"""What is left to do: the listing, less what the table already holds for this model; and whether all of it was done."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from pipeline.errors import ReconciliationError
from pipeline.path_columns import NONE, path_columns
from pipeline.query import IS_PERMANENT, connect, literal
from pipeline.table import ResultTable


@dataclass(frozen=True)
class Plan:
    """Counts of keys (uri, etag): listed = vouched + already_ok + already_failed + planned."""

    listed: int
    already_ok: int
    already_failed: int
    planned: int
    vouched: int = 0
    """Not looked up in the table: older than the last complete run, which found them all there."""
    path_columns: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """Columns that come from the images' paths."""
    num_unfit: int = 0
    """Planned images whose path lacks one of these columns, or has another type there."""
    buckets: tuple[str, ...] = ()
    """S3 buckets of the planned images."""
    vouched_before: datetime | None = None
    """What was modified before is vouched for."""
    planned_bytes: int | None = None
    """Of the planned images; None where the size of one is not known."""

    @property
    def already_done(self) -> int:
        """Detected, or failed for good, in an earlier run."""
        return self.vouched + self.already_ok + self.already_failed


def make_plan(
    listing: Path,
    table: ResultTable,
    model_digest: str,
    max_attempts: int,
    work: Path,
    path_columns_setting: str = NONE,
    retried_stages: Collection[str] = (),
    vouched_before: datetime | None = None,
) -> Plan:
    """Anti-join a listing with the table, and write the rows that are left.

    A key is done when its row is ok, could not be decoded (the same bytes never will be), or has failed in another
    way `max_attempts` times.

    Args:
        listing: Parquet file as `list_inputs` writes it.
        table: the results so far.
        model_digest: whose results count.
        max_attempts: how often an image is tried whose failure may pass.
        work: the Parquet file to write: the listing's columns, num_attempts, this one counted, and those of the path.
        path_columns_setting: a template, `hive` or `none`.
        retried_stages: failures of these are planned again, whatever they were.
        vouched_before: what was modified before stands in the table (`pipeline.watermark`); only its failures are looked at.

    Raises:
        SettingError: no path fits the template.
    """
    is_changed, source = _is_changed(vouched_before), f"read_parquet({literal(str(listing))})"
    stages = ", ".join(map(literal, retried_stages))
    # A view: of a CTE that is named twice DuckDB would keep all rows.
    known = f"""
        CREATE TEMP VIEW known AS SELECT uri, etag, status, num_attempts,
            status = 'ok' OR (
                NOT list_contains([{stages}]::VARCHAR[], error_stage) AND ({IS_PERMANENT} OR num_attempts >= {max_attempts})
            ) AS is_done
        FROM results WHERE model_digest = {literal(model_digest)}
    """
    judged = f"""
        CREATE TEMP TABLE judged AS
        SELECT changed.*, coalesce(num_attempts, 0)::INTEGER + 1 AS num_attempts, status, coalesce(is_done, false) AS is_done
        FROM (FROM {source} WHERE {is_changed}) AS changed LEFT JOIN known USING (uri, etag)
        UNION ALL
        SELECT vouched.*, num_attempts + 1, status, is_done
        FROM (FROM {source} WHERE NOT {is_changed}) AS vouched
        JOIN (FROM known WHERE status <> 'ok' AND NOT is_done) USING (uri, etag)
    """
    with connect(table) as db:
        db.execute(known)
        db.execute(judged)
        columns = path_columns(db, "judged", path_columns_setting, table.schema)
        texts = "".join(f', {column.value} AS "{column.name}"' for column in columns)
        left = f"SELECT * EXCLUDE (status, is_done){texts} FROM judged WHERE NOT is_done"
        db.execute(f"COPY ({left}) TO {literal(str(work))} (FORMAT parquet)")
        listed, num_judged, already_ok, already_failed, planned = db.execute(
            f"""SELECT (SELECT count(*) FROM {source}), count(*), count(*) FILTER (is_done AND status = 'ok'),
                count(*) FILTER (is_done AND status <> 'ok'), count(*) FILTER (NOT is_done) FROM judged"""
        ).fetchall()[0]
        is_unfit = " OR ".join(f'"{column.name}" IS NULL' for column in columns) or "false"
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
        listed - num_judged if vouched_before else 0,
        schema,
        num_unfit,
        tuple(sorted(buckets or ())),
        vouched_before,
        planned_bytes,
    )


def _is_changed(vouched_before: datetime | None) -> str:
    """The SQL for: this listed image is to be looked up in the table."""
    if vouched_before is None:
        return "true"
    # The time of an upload in parts is that of its beginning, on S3; its etag has a hyphen.
    return (
        f"(coalesce(last_modified >= TIMESTAMPTZ {literal(vouched_before.isoformat())}, true) OR contains(etag, '-'))"
    )


@dataclass(frozen=True)
class Tally:
    """Rows that the table holds of the keys of a plan, by status; keys without one, and rows beyond one a key."""

    ok: int
    failed: int
    missing: int
    doubled: int


def tally(plan: Plan, listing: Path, work: Path, table: ResultTable, model_digest: str) -> Tally:
    """Count the rows of a plan's keys in the table as it is now, without those vouched for.

    Args:
        plan: and what it was made of: the listing, the work that it wrote, and the model.
        listing, work, model_digest: as `make_plan` was given them.
        table: as it is at the end of the run.
    """
    is_changed = _is_changed(plan.vouched_before)
    with connect(table) as db:
        counts = db.execute(
            f"""
            WITH keys AS (
                SELECT uri, etag FROM read_parquet({literal(str(listing))}) WHERE {is_changed}
                UNION ALL SELECT uri, etag FROM read_parquet({literal(str(work))}) WHERE NOT {is_changed}
            ),
            known AS (SELECT uri, etag, status FROM results WHERE model_digest = {literal(model_digest)})
            SELECT count(*) FILTER (status = 'ok'), count(*) FILTER (status = 'failed'),
                count(*) FILTER (status IS NULL), count(*) - (SELECT count(*) FROM keys)
            FROM keys LEFT JOIN known USING (uri, etag)
            """
        ).fetchall()[0]
    return Tally(*counts)


def reconcile(plan: Plan, ok: int, failed: int, found: Tally) -> None:
    """Hold a run against the table: each listed key has one row, and as many of each status as were counted.

    Args:
        plan: made at the start.
        ok: images the run detected.
        failed: images the run could not detect.
        found: the table at the end.

    Raises:
        ReconciliationError: rows are missing, doubled, or of another status.
    """
    expected = Tally(plan.already_ok + ok, plan.already_failed + failed, missing=0, doubled=0)
    if found != expected:
        raise ReconciliationError(
            f"the table holds {found} of the planned keys and those already done, expected {expected}; run it again"
        )
