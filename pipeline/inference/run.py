"""One run: list, plan, fetch and decode, detect, commit, reconcile."""

import json
import logging
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake.exceptions import DeltaError

from model.package_files import PackageError, PackageFiles
from pipeline import logs
from pipeline.errors import SettingError, TargetMissedError, ended_by
from pipeline.inference.cost import Cost
from pipeline.inference.estimate import Estimate, Throughput, estimates, last_throughput
from pipeline.inference.failures import Failures
from pipeline.inference.plan import Plan, make_plan, reconcile, tally
from pipeline.inference.settings import InferSettings
from pipeline.inference.summary import DryRunSummary, Summary, explain
from pipeline.inputs.listing import list_inputs, take_between, take_sample
from pipeline.progress import Progress
from pipeline.redaction import redacted_json
from pipeline.registry.packages import read_files, unusable
from pipeline.signals import told
from pipeline.stages.place import place, works_here
from pipeline.stages.rows import DECODED, IS_FIRST, PlanRows
from pipeline.stages.runner import FetchAndDecode, Runner, RunObserver, Stages, results, started
from pipeline.stages.timings import METERS, Meters
from pipeline.table.commit import Committer
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence
from pipeline.table.run_records import RUNS, recorded
from pipeline.table.schema import IS_RETRY

logger = logging.getLogger(__name__)


def infer(settings: InferSettings) -> Summary:
    """Detect what the table does not hold yet.

    Raises:
        SettingError: before anything is started or written.
        TargetMissedError: more images failed than may, or most of the last thousand alike; all that was done is in the table.
        ReconciliationError: rows are missing at the end; what is in the table stays, and the next run does the rest.
    """
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder, ExitStack() as stack:
        table = ResultTable(settings.table)
        return Run(settings, table, read_files(settings.model), Path(folder), stack).execute()


class Run:
    """One run.

    Args:
        settings: the knobs.
        table: where results go.
        package: the model.
        folder: for its listing and its plan.
        stack: keeps the place of work that the run enters, until its owner leaves it; the next run uses it, too.
        listed: a listing to take instead of the settings' input.
    """

    def __init__(
        self,
        settings: InferSettings,
        table: ResultTable,
        package: PackageFiles,
        folder: Path,
        stack: ExitStack,
        listed: Path | None = None,
    ) -> None:
        self._settings, self._table, self._package, self._stack = settings, table, package, stack
        self._started, self._began = time.monotonic(), datetime.now(UTC)
        self._listed = listed
        self._listing, self._work = folder / "listing.parquet", folder / "work.parquet"
        self._failures = Failures(settings.max_failed_share)
        self._fence = Fence(table, f"{self._began:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}", settings.commit_interval_s)
        self._run_date = settings.run_date or self._began.date()
        self._constants = {
            "model_name": package.record.name,
            "model_digest": package.digest,
            "run_id": self._fence.run_id,
            "run_date": self._run_date,
        }

    def execute(self) -> Summary:
        """From listing to reconciliation; raises as `infer`."""
        with logs.of_run(self._fence.run_id), ExitStack() as self._at_end:
            try:
                return self._execute()
            except (OSError, DeltaError) as error:  # a full disk, say
                raise ended_by(
                    f"table {self._table.url!r}: what was committed stays, and the run ended", error
                ) from error

    def _execute(self) -> Summary:
        settings = self._settings
        self._skipped = self._list()
        seen = self._table.data_files()
        plan = self._plan()
        logger.info("%s", explain(plan, self._skipped))
        if settings.dry_run:
            return self._dry_run(plan)
        self._check_limits(plan)
        if not plan.planned and not self._table.exists:
            return self._summary(plan)
        if not plan.planned:
            with self._recorded() as record:
                return self._summary(plan, record)
        _check_readable(plan)
        return self._detect(plan, seen)

    def _dry_run(self, plan: Plan) -> DryRunSummary:
        """What the run would do, and take."""
        measured = last_throughput(self._table, self._package.digest)
        expected = self._estimates(plan, measured) if measured else []
        return DryRunSummary(
            **asdict(self._summary(plan)), planned_bytes=plan.planned_bytes, measured=measured, estimates=expected
        )

    def _estimates(self, plan: Plan, measured: Throughput) -> list[Estimate]:
        settings = self._settings
        return estimates(plan.planned, measured, settings.num_detectors, settings.price_per_node_hour)

    def _check_limits(self, plan: Plan) -> None:
        """Before anything is started.

        Raises:
            SettingError: more is planned than `max_planned`, or it would cost more than `max_cost`.
        """
        settings = self._settings
        if settings.max_planned and plan.planned > settings.max_planned and not settings.backfill:
            why = (
                "" if plan.already_done else f", as none of them was done with model {self._package.digest[:12]} before"
            )
            raise SettingError(
                f"max_planned: {plan.planned:,} images are planned, more than {settings.max_planned:,}{why}; if that is "
                "meant, give --backfill"
            )
        if settings.max_cost is None or not (measured := last_throughput(self._table, self._package.digest)):
            return
        expected = self._estimates(plan, measured)[-1]
        if expected.cost is not None and expected.cost > settings.max_cost:
            raise SettingError(
                f"max_cost: {plan.planned:,} images would cost {expected.cost:.2f}, more than {settings.max_cost:g}: "
                f"{expected.hours:.2f} hours on {expected.num_detectors} detectors, as fast as run {measured.run_id}; if that is "
                "meant, give a higher max_cost"
            )

    def _list(self) -> int:
        """Write the listing; how many names were skipped."""
        settings, skipped = self._settings, 0
        if self._listed is None:
            skipped = list_inputs(settings.input, settings.all_files, self._listing, settings.since, settings.until)
        else:
            take_between(self._listed, settings.since, settings.until, self._listing)
        if settings.sample:
            take_sample(self._listing, settings.sample)
        return skipped

    def _plan(self) -> Plan:
        settings = self._settings
        table = ResultTable(settings.table)  # as it is now; the run's own is the committer's while it runs
        return make_plan(
            self._listing,
            table,
            self._package.digest,
            self._fence.run_id,
            settings.max_attempts,
            self._work,
            settings.path_columns,
            settings.retried_stages,
        )

    def _recorded(self) -> AbstractContextManager[dict[str, Any]]:
        settings, engine = (
            json.dumps(redacted_json(self._settings.model_dump(mode="json"))),
            f"torch {version('torch')}",
        )
        is_whole = not self._settings.sample
        return recorded(self._table, is_whole, **self._constants, lag_s=self._lag_s, settings=settings, engine=engine)

    @property
    def _lag_s(self) -> float | None:
        due_at = self._settings.due_at
        return (self._began - due_at).total_seconds() if due_at else None

    def _detect(self, plan: Plan, seen: list[str]) -> Summary:
        """Start who works, hold the table, let them do what is planned, commit, and check the table at the end."""
        settings = self._settings
        if self._table.exists:
            self._fence.wait_until_free(settings.take_over)
        self._stack.enter_context(place(settings))
        stages = self._stages(plan)
        try:
            runner = self._at_end.enter_context(started(settings, stages, plan.planned))
        except PackageError as error:
            raise unusable(settings.model, error) from error
        self._table.create()
        with self._fence.held(settings.take_over), self._recorded() as record:
            record["runner"] = runner.name
            if new := self._table.lacking(plan.path_columns):
                self._fence.commit(lambda properties: self._table.add_columns(new, properties))
            try:
                return self._reconciled(*self._commit_all(plan, seen, record, runner, stages), record)
            except TargetMissedError:
                if self._failures.are_systemic:
                    self._fence.commit(
                        lambda properties: self._table.uncount(self._fence.run_id, self._run_date, properties)
                    )
                raise

    def _reconciled(self, plan: Plan, ok: int, failed: int, record: dict[str, Any]) -> Summary:
        """Check the table at the end."""
        summary = self._summary(plan, record, ok, failed)
        with self._committer():  # which keeps the hold, while all is counted
            found = tally(self._listing, ResultTable(self._settings.table), self._package.digest)
        reconcile(plan, ok, failed, found)
        self._failures.check(summary)
        return summary

    def _committer(self, took: Callable[[float], None] = lambda seconds: None) -> Committer:
        return Committer(self._table, self._fence, self._settings.commit_interval_s, took)

    def _stages(self, plan: Plan) -> Stages:
        settings, package, table = self._settings, self._package, self._table
        new_columns = [field for field in plan.path_columns if field.name not in table.schema.names]
        return Stages(
            read=PlanRows(str(self._work) if works_here(settings) else table.working_url(self._shared_name)),
            decode=FetchAndDecode(package.record.architecture.image_size_px, settings.max_pixels),
            decoded=DECODED,
            package_files=package.content,
            batch_size=settings.batch_size,
            constants=self._constants,
            schema=pa.schema([*table.schema, *new_columns, *METERS, (IS_RETRY, pa.bool_()), (IS_FIRST, pa.bool_())]),
        )

    @property
    def _shared_name(self) -> str:
        """Of the plan beside the table, where the nodes of a cluster read it."""
        return f"{self._fence.run_id}.parquet"

    def _commit_all(
        self, plan: Plan, seen: list[str], record: dict[str, Any], runner: Runner, stages: Stages
    ) -> tuple[Plan, int, int]:
        """Commit what is planned, once an interval: the plan that was held to, and how many were ok and failed."""
        observer = runner.observer(self._table.url, self._settings.batch_size)
        committer = self._committer(observer.committed)
        try:
            with committer, told(committer.stop), ExitStack() as while_running:
                if ResultTable(self._settings.table).data_files() != seen:  # Another run has ended since.
                    plan = self._plan()
                record |= self._counts(plan)
                if not works_here(self._settings):
                    while_running.enter_context(self._table.working_file(self._work, self._shared_name))
                return plan, *self._stream(plan, committer, observer, record, runner, stages)
        finally:
            record["commit_s"] = committer.commit_s

    def _stream(
        self,
        plan: Plan,
        committer: Committer,
        observer: RunObserver,
        record: dict[str, Any],
        runner: Runner,
        stages: Stages,
    ) -> tuple[int, int]:
        """Send what is planned through the stages; how many were ok and failed. What it took is recorded, however it ends."""
        settings = self._settings
        spread = runner.spread(plan.planned)
        observer.begin(plan.planned, spread.num_detectors, self._lag_s)
        meters = Meters(self._started, spread.num_detectors)
        cost = Cost(
            settings.price_per_node_hour, settings.max_cost, runner.num_nodes, self._started, settings.commit_interval_s
        )
        with (
            closing(Progress(plan.planned)) as progress,
            closing(results(runner, plan.planned, stages, spread)) as all_rows,
        ):
            try:
                for rows in all_rows:
                    observer.add(rows)
                    committer.put(meters.take(rows))
                    progress.update(rows.num_rows, self._failures.take(rows))
                    cost.check()
            finally:
                record |= meters.columns() | cost.columns(progress.done)
        return progress.done - progress.failed, progress.failed

    def _counts(self, plan: Plan) -> dict[str, int]:
        """What is known of a run before it does anything."""
        return {
            "listed": plan.listed, "skipped": self._skipped, "already_done": plan.already_done, "planned": plan.planned,
        }  # fmt: skip

    def _summary(self, plan: Plan, record: dict[str, Any] | None = None, ok: int = 0, failed: int = 0) -> Summary:
        """What was done so far; into the record, too."""
        wall_s = time.monotonic() - self._started
        summary = Summary(
            self._fence.run_id, self._table.url, self._package.digest, **self._counts(plan), ok=ok, failed=failed,
            wall_s=round(wall_s, 3), images_per_s=round((ok + failed) / wall_s, 3),
        )  # fmt: skip
        if record is not None:
            record |= {name: value for name, value in asdict(summary).items() if name in RUNS.names}
        return summary


def _check_readable(plan: Plan) -> None:
    if plan.buckets:
        from pipeline.storage import s3

        for bucket in plan.buckets:
            s3.check_images_readable(bucket)
