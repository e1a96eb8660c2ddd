"""One run: list, plan, fetch and decode, detect, commit, reconcile."""

import logging
import tempfile
import time
import uuid
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import pyarrow.compute as pc
from pydantic import AfterValidator, Field, model_validator

from model.config import Frozen
from pipeline import s3
from pipeline.commit import Committer
from pipeline.errors import SettingError
from pipeline.fence import Fence
from pipeline.listing import list_inputs
from pipeline.path_columns import HIVE, TYPE_NAMES, check_setting
from pipeline.plan import Plan, make_plan, reconcile, tally
from pipeline.progress import Progress
from pipeline.runs import RUNS, recorded
from pipeline.table import ResultTable

if TYPE_CHECKING:
    from model.package import ModelPackage

logger = logging.getLogger(__name__)

Stage = Literal["fetch", "decode", "detect"]
Moment = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]


class InferSettings(Frozen):
    """Every knob of a run."""

    input: Annotated[tuple[str, ...], Field(min_length=1)]
    """Folder, glob, s3://bucket/prefix, any fsspec URL, or a manifest (.parquet, .csv, .jsonl with a column uri); may be given several times."""
    table: Annotated[str, Field(min_length=1)]
    """Delta table of results, local or s3://; made when there is none."""
    model: Annotated[str, Field(min_length=1)]
    """Model package: a folder with model.json and model.safetensors."""
    all_files: bool = False
    """Take all files of folders and prefixes, not only those with an image's suffix."""
    since: Moment | None = None
    """Take only images modified at or after this time (ISO 8601; UTC unless it says otherwise); those without a time are taken."""
    until: Moment | None = None
    """Take only images modified before this time."""
    run_date: date | None = None
    """The rows' run_date; today, in UTC, unless given."""
    max_planned: Annotated[int, Field(ge=1)] | None = None
    """Stop before anything is started when more images than this are planned: a new model plans everything again."""
    backfill: bool = False
    """Never mind max_planned this time."""
    path_columns: Annotated[str, AfterValidator(check_setting)] = HIVE
    """Columns from folders: "hive" takes names like camera=7/ by themselves; a template such as "{site}/cam-{camera:int}/{date}" stands for the folders above the file; "none" takes none."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Images a forward pass."""
    num_detectors: Annotated[int, Field(ge=0)] = 0
    """Detector actors; 0 = one a GPU, or one a core where there is no GPU."""
    max_pixels: Annotated[int, Field(ge=1)] = 200_000_000
    """Pictures of more pixels are failures, and not decoded."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Runs that try an image whose failure may pass, such as one of storage."""
    retry_failed: bool = False
    """Try all failed images once more, those that failed for good too."""
    stage: Stage | None = None
    """With --retry-failed: only those that failed in this stage, fetch, decode or detect."""
    commit_interval_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds between commits: what a crash can lose. A run that does not commit for three of them is held for dead."""
    take_over: bool = False
    """Take the table from another run at once, even from one that lives: that one stops."""
    address: str = "local"
    """Ray cluster: an address, "auto" for the one this machine belongs to, "local" for one of its own on this machine."""
    dry_run: bool = False
    """Plan, count and stop."""

    @model_validator(mode="after")
    def _stage_of_a_retry(self) -> "InferSettings":
        if self.stage and not self.retry_failed:
            raise ValueError("stage says which failures to retry; give --retry-failed too")
        return self

    @property
    def retried_stages(self) -> tuple[str, ...]:
        """Failures of these stages are tried again, whatever they were."""
        if not self.retry_failed:
            return ()
        return (self.stage,) if self.stage else get_args(Stage)


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
    started = time.monotonic()
    from pipeline.packages import read_package  # torch takes seconds to import: not before it is needed

    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
        run = _Run(settings, ResultTable(settings.table), read_package(settings.model), Path(folder), started)
        return run.execute()


def explain(plan: Plan, skipped: int) -> str:
    """The plan in a sentence."""
    nothing = "; nothing to do" if not plan.planned else ""
    columns = ", ".join(f"{field.name} ({TYPE_NAMES[field.type]})" for field in plan.path_columns)
    unfit = f" ({plan.num_unfit:,} images without)" if plan.num_unfit else ""
    from_paths = f"; columns from paths: {columns}{unfit}" if columns else ""
    return (
        f"{plan.listed:,} images listed ({skipped:,} other files skipped): {plan.already_ok:,} already detected, "
        f"{plan.already_failed:,} failed for good before, {plan.planned:,} planned{nothing}{from_paths}"
    )


class _Run:
    """One call of `infer`.

    Args:
        settings: the knobs.
        table: where results go.
        package: the model.
        folder: for its listing and its plan.
        started: by the monotonic clock.
    """

    def __init__(
        self, settings: InferSettings, table: ResultTable, package: "ModelPackage", folder: Path, started: float
    ) -> None:
        now = datetime.now(UTC)
        self._settings, self._table, self._package, self._started = settings, table, package, started
        self._listing, self._work = folder / "listing.parquet", folder / "work.parquet"
        self._fence = Fence(table, f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}", settings.commit_interval_s)
        self._constants = {
            "model_name": package.record.name,
            "model_digest": package.digest,
            "run_id": self._fence.run_id,
            "run_date": settings.run_date or now.date(),
        }

    def execute(self) -> Summary:
        settings = self._settings
        self._skipped = list_inputs(settings.input, settings.all_files, self._listing, settings.since, settings.until)
        seen = self._table.data_files()
        plan = self._plan()
        logger.info("%s", explain(plan, self._skipped))
        if settings.dry_run:
            return self._summary(plan)
        if settings.max_planned and plan.planned > settings.max_planned and not settings.backfill:
            raise SettingError(
                f"max_planned: {plan.planned:,} images are planned, more than {settings.max_planned:,}; if that is meant, "
                "give --backfill"
            )
        if not plan.planned and not self._table.exists:
            return self._summary(plan)
        if not plan.planned:
            with self._recorded() as record:
                return self._summary(plan, record)
        for bucket in plan.buckets:
            s3.check_images_readable(bucket)
        return self._detect(plan, seen)

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
            retried_stages=settings.retried_stages,
        )

    def _recorded(self) -> AbstractContextManager[dict[str, Any]]:
        import torch

        settings = self._settings.model_dump_json()
        return recorded(self._table, **self._constants, settings=settings, engine=f"torch {torch.__version__}")

    def _detect(self, plan: Plan, seen: list[str]) -> Summary:
        """Hold the table, send what is planned through the cluster, commit, and check the table at the end."""
        from pipeline.cluster import cluster

        take_over = self._settings.take_over
        if self._table.exists:
            self._fence.wait_until_free(take_over)
        with cluster(self._settings.address):
            self._table.create(plan.path_columns)
            with self._fence.held(take_over), self._recorded() as record:
                with Committer(self._table, self._fence, self._settings.commit_interval_s) as committer:
                    if ResultTable(self._settings.table).data_files() != seen:  # Another run has ended since.
                        plan = self._plan()
                    ok, failed = self._stream(plan, committer)
                summary = self._summary(plan, record, ok, failed)
                reconcile(plan, ok, failed, tally(self._listing, self._table, self._package.digest))
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
