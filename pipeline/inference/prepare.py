"""Prepare a run: list the images, plan what is left to do, and check that it may be done. Nothing is started or written here."""

import time
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from model.package_files import PackageFiles
from pipeline.errors import SettingError
from pipeline.inference.estimate import Estimate, Throughput, estimates, last_throughput
from pipeline.inference.plan import Plan, make_plan
from pipeline.inference.settings import InferSettings
from pipeline.inference.summary import DryRunSummary, Summary
from pipeline.inputs.listing import list_inputs, take_between, take_sample
from pipeline.table.delta import ResultTable


@dataclass(frozen=True)
class RunTask:
    """The task of a run: what it is to do, and its identity."""

    settings: InferSettings
    table: ResultTable
    package: PackageFiles
    folder: Path
    """The folder for its listing and its plan."""
    listed: Path | None = None
    """A listing to take instead of the settings' input."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_s: float = field(default_factory=time.monotonic)

    @cached_property
    def run_id(self) -> str:
        """The run's name. Names sort by the time at which the runs began."""
        return f"{self.began:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"

    @property
    def run_date(self) -> date:
        """The date that the run's rows have."""
        return self.settings.run_date or self.began.date()

    @property
    def lag_s(self) -> float | None:
        """The seconds from the time at which the run was due to its start; None for a run without a schedule."""
        due_at = self.settings.due_at
        return (self.began - due_at).total_seconds() if due_at else None

    @property
    def listing(self) -> Path:
        """The file with all images."""
        return self.folder / "listing.parquet"

    @property
    def work(self) -> Path:
        """The file with the planned images."""
        return self.folder / "work.parquet"

    @property
    def constants(self) -> dict[str, Any]:
        """The columns that are the same in all of the run's rows."""
        return {
            "model_name": self.package.record.name,
            "model_digest": self.package.digest,
            "run_id": self.run_id,
            "run_date": self.run_date,
        }

    def plan(self) -> Plan:
        """Plan the images that the table, in its current version, does not hold yet."""
        return make_plan(
            self.listing,
            ResultTable(self.table.url),  # its own view of the table: the committer uses that of the run meanwhile
            self.package.digest,
            self.run_id,
            self.settings.max_attempts,
            self.work,
            self.settings.path_columns,
            self.settings.retried_stages,
        )


@dataclass(frozen=True)
class Prepared:
    """A run that may be executed."""

    task: RunTask
    skipped: int
    """The number of listed names that are not images."""
    plan: Plan
    data_files: list[str]
    """The table's data files before it was planned."""

    def counts(self) -> dict[str, int]:
        """Return the counts that are known before the run does anything."""
        return {
            "listed": self.plan.listed,
            "skipped": self.skipped,
            "already_done": self.plan.already_done,
            "planned": self.plan.planned,
        }

    def summary(self, ok: int = 0, failed: int = 0) -> Summary:
        """Return the summary of what the run has done so far."""
        task, wall_s = self.task, time.monotonic() - self.task.started_s
        return Summary(
            task.run_id, task.table.url, task.package.digest, **self.counts(), ok=ok, failed=failed,
            wall_s=round(wall_s, 3), images_per_s=round((ok + failed) / wall_s, 3),
        )  # fmt: skip


def prepare(task: RunTask) -> Prepared:
    """List the images, and plan the run.

    Raises:
        SettingError: the input can't be listed, or a setting does not fit it.
    """
    skipped = _list(task)
    data_files = task.table.data_files()
    return Prepared(task, skipped, task.plan(), data_files)


def _list(task: RunTask) -> int:
    """Write the listing, and return how many names were skipped."""
    settings, skipped = task.settings, 0
    if task.listed is None:
        skipped = list_inputs(settings.input, settings.all_files, task.listing, settings.since, settings.until)
    else:
        take_between(task.listed, settings.since, settings.until, task.listing)
    if settings.sample:
        take_sample(task.listing, settings.sample)
    return skipped


def dry_run(prepared: Prepared) -> DryRunSummary:
    """Return the summary of what the run would do, with estimates of what it would take."""
    measured = last_throughput(prepared.task.table, prepared.task.package.digest)
    expected = _estimates(prepared, measured) if measured else []
    return DryRunSummary(
        **asdict(prepared.summary()),
        planned_bytes=prepared.plan.planned_bytes,
        measured=measured,
        estimates=expected,
    )


def _estimates(prepared: Prepared, measured: Throughput) -> list[Estimate]:
    settings = prepared.task.settings
    return estimates(prepared.plan.planned, measured, settings.num_detectors, settings.price_per_node_hour)


def check_limits(prepared: Prepared) -> None:
    """Check that no more is planned than the settings allow.

    Raises:
        SettingError: more is planned than `max_planned`, or it would cost more than `max_cost`.
    """
    settings, plan, digest = prepared.task.settings, prepared.plan, prepared.task.package.digest
    if settings.max_planned and plan.planned > settings.max_planned and not settings.backfill:
        why = "" if plan.already_done else f", as none of them was done with model {digest[:12]} before"
        raise SettingError(
            f"max_planned: {plan.planned:,} images are planned, more than {settings.max_planned:,}{why}; if that is "
            "meant, give --backfill"
        )
    if settings.max_cost is None or not (measured := last_throughput(prepared.task.table, digest)):
        return
    expected = _estimates(prepared, measured)[-1]
    if expected.cost is not None and expected.cost > settings.max_cost:
        raise SettingError(
            f"max_cost: {plan.planned:,} images would cost {expected.cost:.2f}, more than {settings.max_cost:g}: "
            f"{expected.hours:.2f} hours on {expected.num_detectors} detectors, as fast as run {measured.run_id}; if that is "
            "meant, give a higher max_cost"
        )
