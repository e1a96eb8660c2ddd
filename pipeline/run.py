"""One run: list, plan, fetch and decode, detect, commit, reconcile."""

import logging
import tempfile
import time
import uuid
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from pipeline import log_lines, s3, watermark
from pipeline.commit import Committer
from pipeline.cost import Cost
from pipeline.errors import SettingError
from pipeline.estimate import Estimate, Throughput, estimates, last_throughput
from pipeline.fence import Fence
from pipeline.listing import list_inputs, take_between, take_sample
from pipeline.meters import Meters
from pipeline.plan import Plan, make_plan, reconcile, tally
from pipeline.progress import Progress
from pipeline.runs import RUNS, recorded
from pipeline.settings import InferSettings
from pipeline.stop import told
from pipeline.summary import DryRunSummary, Summary, explain
from pipeline.table import ResultTable

if TYPE_CHECKING:
    from model.package import ModelPackage
    from pipeline.metrics import RunMetrics

logger = logging.getLogger(__name__)


def infer(settings: InferSettings) -> Summary:
    """Detect what the table does not hold yet.

    Raises:
        SettingError: before anything is started or written.
        ReconciliationError: rows are missing at the end; what is in the table stays, and the next run does the rest.
    """
    from pipeline.packages import read_package  # torch takes seconds to import: not before it is needed

    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder, ExitStack() as stack:
        table = ResultTable(settings.table)
        return Run(settings, table, read_package(settings.model), Path(folder), stack).execute()


class Run:
    """One run.

    Args:
        settings: the knobs.
        table: where results go.
        package: the model.
        folder: for its listing and its plan.
        stack: keeps the Ray cluster that the run starts, until its owner leaves it; the next run uses it, too.
        listed: a listing to take instead of the settings' input.
    """

    def __init__(
        self,
        settings: InferSettings,
        table: ResultTable,
        package: "ModelPackage",
        folder: Path,
        stack: ExitStack,
        listed: Path | None = None,
    ) -> None:
        self._settings, self._table, self._package, self._stack = settings, table, package, stack
        self._started, self._began = time.monotonic(), datetime.now(UTC)
        self._listed = listed
        self._listing, self._work = folder / "listing.parquet", folder / "work.parquet"
        self._fence = Fence(table, f"{self._began:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}", settings.commit_interval_s)
        self._constants = {
            "model_name": package.record.name,
            "model_digest": package.digest,
            "run_id": self._fence.run_id,
            "run_date": settings.run_date or self._began.date(),
        }

    def execute(self) -> Summary:
        """From listing to reconciliation; raises as `infer`."""
        with log_lines.of_run(self._fence.run_id):
            return self._execute()

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
        for bucket in plan.buckets:
            s3.check_images_readable(bucket)
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
            settings.max_attempts,
            self._work,
            settings.path_columns,
            settings.retried_stages,
            None if settings.full_plan else watermark.vouched_before(table, self._mark_name(table)),
        )

    def _mark_name(self, table: ResultTable) -> str | None:
        """What a complete run vouches for; None where it listed but a part."""
        settings = self._settings
        if settings.since or settings.until or settings.sample:
            return None
        return watermark.application(table, settings.input, settings.all_files, self._package.digest)

    def _recorded(self) -> AbstractContextManager[dict[str, Any]]:
        import torch

        settings, engine = self._settings.model_dump_json(), f"torch {torch.__version__}"
        is_whole = not self._settings.sample
        return recorded(self._table, is_whole, **self._constants, lag_s=self._lag_s, settings=settings, engine=engine)

    @property
    def _lag_s(self) -> float | None:
        due_at = self._settings.due_at
        return (self._began - due_at).total_seconds() if due_at else None

    def _detect(self, plan: Plan, seen: list[str]) -> Summary:
        """Hold the table, send what is planned through the cluster, commit, and check the table at the end."""
        from pipeline.capacity import wait_until_they_fit
        from pipeline.cluster import cluster

        settings = self._settings
        if self._table.exists:
            self._fence.wait_until_free(settings.take_over)
        self._stack.enter_context(cluster(settings.address))
        wait_until_they_fit(settings)
        self._table.create(plan.path_columns)
        with self._fence.held(settings.take_over), self._recorded() as record:
            plan, ok, failed = self._commit_all(plan, seen, record)
            summary = self._summary(plan, record, ok, failed)
            reconcile(plan, ok, failed, tally(plan, self._listing, self._work, self._table, self._package.digest))
            if name := self._mark_name(self._table):
                self._fence.note(watermark.mark(name, self._began))
            return summary

    def _commit_all(self, plan: Plan, seen: list[str], record: dict[str, Any]) -> tuple[Plan, int, int]:
        """Commit what is planned, once an interval: the plan that was held to, and how many were ok and failed."""
        from pipeline.metrics import RunMetrics

        metrics = RunMetrics(self._table.url, self._settings.batch_size)
        committer = Committer(self._table, self._fence, self._settings.commit_interval_s, metrics.committed)
        try:
            with committer, told(committer.stop):
                if ResultTable(self._settings.table).data_files() != seen:  # Another run has ended since.
                    plan = self._plan()
                record |= self._counts(plan)
                return plan, *self._stream(plan, committer, metrics, record)
        finally:
            record["commit_s"] = committer.commit_s

    def _stream(
        self, plan: Plan, committer: Committer, metrics: "RunMetrics", record: dict[str, Any]
    ) -> tuple[int, int]:
        """Send what is planned through the stages; how many were ok and failed. What it took is recorded, however it ends."""
        from pipeline.capacity import num_nodes
        from pipeline.stream import results, spread_over_cluster

        settings = self._settings
        spread = spread_over_cluster(plan.planned, settings)
        metrics.begin(plan.planned, spread.num_detectors, self._lag_s)
        meters = Meters(self._started, spread.num_detectors)
        cost = Cost(
            settings.price_per_node_hour, settings.max_cost, num_nodes, self._started, settings.commit_interval_s
        )
        with (
            self._table.working_file(self._work, f"{self._fence.run_id}.parquet") as work_url,
            closing(Progress(plan.planned)) as progress,
            closing(
                results(
                    work_url,
                    plan.planned,
                    self._package,
                    self._constants,
                    self._table.schema,
                    spread=spread,
                    batch_size=settings.batch_size,
                    max_pixels=settings.max_pixels,
                )
            ) as all_rows,
        ):
            try:
                for rows in all_rows:
                    metrics.add(rows)
                    committer.put(meters.take(rows))
                    failed = pc.sum(pc.equal(rows["status"], "failed")).as_py() or 0
                    progress.update(rows.num_rows, failed)
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
