"""One run: list, plan, fetch and decode, detect, commit, reconcile."""

import logging
import tempfile
import time
import uuid
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from pipeline import s3, watermark
from pipeline.commit import Committer
from pipeline.errors import SettingError
from pipeline.fence import Fence
from pipeline.listing import list_inputs, take_between
from pipeline.path_columns import TYPE_NAMES
from pipeline.plan import Plan, make_plan, reconcile, tally
from pipeline.progress import Progress
from pipeline.runs import RUNS, recorded
from pipeline.settings import InferSettings
from pipeline.table import ResultTable

if TYPE_CHECKING:
    from model.package import ModelPackage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What a run did. already_done = ok and permanently failed before; listed = already_done + ok + failed at the end."""

    run_id: str
    table: str
    model_digest: str
    listed: int
    skipped: int
    already_done: int
    planned: int
    ok: int
    failed: int
    wall_s: float
    images_per_s: float


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


def explain(plan: Plan, skipped: int) -> str:
    """The plan in a sentence."""
    nothing = "; nothing to do" if not plan.planned else ""
    columns = ", ".join(f"{field.name} ({TYPE_NAMES[field.type]})" for field in plan.path_columns)
    unfit = f" ({plan.num_unfit:,} images without)" if plan.num_unfit else ""
    from_paths = f"; columns from paths: {columns}{unfit}" if columns else ""
    vouched = f"{plan.vouched:,} older than the last complete run, " if plan.vouched_before else ""
    return (
        f"{plan.listed:,} images listed ({skipped:,} other files skipped): {vouched}{plan.already_ok:,} already detected, "
        f"{plan.already_failed:,} failed for good before, {plan.planned:,} planned{nothing}{from_paths}"
    )


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
        settings = self._settings
        self._skipped = self._list()
        seen = self._table.data_files()
        plan = self._plan()
        logger.info("%s", explain(plan, self._skipped))
        if settings.dry_run:
            return self._summary(plan)
        if settings.max_planned and plan.planned > settings.max_planned and not settings.backfill:
            why = (
                "" if plan.already_done else f", as none of them was done with model {self._package.digest[:12]} before"
            )
            raise SettingError(
                f"max_planned: {plan.planned:,} images are planned, more than {settings.max_planned:,}{why}; if that is "
                "meant, give --backfill"
            )
        if not plan.planned and not self._table.exists:
            return self._summary(plan)
        if not plan.planned:
            with self._recorded() as record:
                return self._summary(plan, record)
        for bucket in plan.buckets:
            s3.check_images_readable(bucket)
        return self._detect(plan, seen)

    def _list(self) -> int:
        settings = self._settings
        if self._listed is None:
            return list_inputs(settings.input, settings.all_files, self._listing, settings.since, settings.until)
        take_between(self._listed, settings.since, settings.until, self._listing)
        return 0

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
        if settings.since or settings.until:
            return None
        return watermark.application(table, settings.input, settings.all_files, self._package.digest)

    def _recorded(self) -> AbstractContextManager[dict[str, Any]]:
        import torch

        settings = self._settings.model_dump_json()
        return recorded(self._table, **self._constants, settings=settings, engine=f"torch {torch.__version__}")

    def _detect(self, plan: Plan, seen: list[str]) -> Summary:
        """Hold the table, send what is planned through the cluster, commit, and check the table at the end."""
        from pipeline.cluster import cluster, wait_until_they_fit

        take_over = self._settings.take_over
        if self._table.exists:
            self._fence.wait_until_free(take_over)
        self._stack.enter_context(cluster(self._settings.address))
        wait_until_they_fit(self._settings.num_detectors, self._settings.address)
        self._table.create(plan.path_columns)
        with self._fence.held(take_over), self._recorded() as record:
            with Committer(self._table, self._fence, self._settings.commit_interval_s) as committer:
                if ResultTable(self._settings.table).data_files() != seen:  # Another run has ended since.
                    plan = self._plan()
                ok, failed = self._stream(plan, committer)
            summary = self._summary(plan, record, ok, failed)
            reconcile(plan, ok, failed, tally(plan, self._listing, self._work, self._table, self._package.digest))
            if name := self._mark_name(self._table):
                self._fence.note(watermark.mark(name, self._began))
            return summary

    def _stream(self, plan: Plan, committer: Committer) -> tuple[int, int]:
        """Send what is planned through the stages; how many were ok and failed."""
        from pipeline.stream import results

        with (
            self._table.working_file(self._work, f"{self._fence.run_id}.parquet") as work_url,
            closing(Progress(plan.planned)) as progress,
        ):
            for rows in results(
                work_url,
                plan.planned,
                self._package,
                self._constants,
                self._table.schema,
                num_detectors=self._settings.num_detectors,
                batch_size=self._settings.batch_size,
                max_pixels=self._settings.max_pixels,
            ):
                committer.put(rows)
                failed = pc.sum(pc.equal(rows["status"], "failed")).as_py() or 0
                progress.update(rows.num_rows, failed)
        return progress.done - progress.failed, progress.failed

    def _summary(self, plan: Plan, record: dict[str, Any] | None = None, ok: int = 0, failed: int = 0) -> Summary:
        """What was done so far; into the record, too."""
        wall_s = time.monotonic() - self._started
        summary = Summary(
            self._fence.run_id, self._table.url, self._package.digest, plan.listed, self._skipped, plan.already_done,
            plan.planned, ok, failed, round(wall_s, 3), round((ok + failed) / wall_s, 3),
        )  # fmt: skip
        if record is not None:
            record |= {name: value for name, value in asdict(summary).items() if name in RUNS.names}
        return summary
