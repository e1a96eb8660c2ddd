"""One run: list, plan, fetch and decode, detect, commit, reconcile."""

import logging
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow.compute as pc
from pydantic import AfterValidator, Field

from model.config import Frozen
from pipeline import s3
from pipeline.commit import Committer
from pipeline.fence import Fence
from pipeline.listing import list_inputs
from pipeline.path_columns import HIVE, TYPE_NAMES, check_setting
from pipeline.plan import Plan, make_plan, reconcile, tally
from pipeline.progress import Progress
from pipeline.table import ResultTable

if TYPE_CHECKING:
    from model.package import ModelPackage

logger = logging.getLogger(__name__)


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
    commit_interval_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds between commits: what a crash can lose. A run that does not commit for three of them is held for dead."""
    take_over: bool = False
    """Take the table from another run at once, even from one that lives: that one stops."""
    address: str = "local"
    """Ray cluster: an address, "auto" for the one this machine belongs to, "local" for one of its own on this machine."""
    dry_run: bool = False
    """Plan, count and stop."""


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

    table = ResultTable(settings.table)
    package = read_package(settings.model)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
        listing, work = Path(folder, "listing.parquet"), Path(folder, "work.parquet")
        skipped = list_inputs(settings.input, settings.all_files, listing)

        def plan_now() -> Plan:
            now = ResultTable(settings.table)
            return make_plan(listing, now, package.digest, settings.max_attempts, work, settings.path_columns)

        seen = table.data_files()
        plan = plan_now()
        logger.info("%s", explain(plan, skipped))
        ok = failed = 0
        if plan.planned and not settings.dry_run:
            for bucket in plan.buckets:
                s3.check_images_readable(bucket)
            constants = {
                "model_name": package.record.name,
                "model_digest": package.digest,
                "run_id": run_id,
                "run_date": datetime.now(UTC).date(),
            }

            def plan_when_held() -> Plan:  # Another run may have ended since.
                return plan if ResultTable(settings.table).data_files() == seen else plan_now()

            plan, ok, failed = _detect_all(settings, table, package, constants, work, plan, plan_when_held)
            reconcile(plan, ok, failed, tally(listing, table, package.digest))
    wall_s = time.monotonic() - started
    return Summary(
        run_id, table.url, package.digest, plan.listed, skipped, plan.already_done, plan.planned, ok, failed,
        round(wall_s, 3), round((ok + failed) / wall_s, 3),
    )  # fmt: skip


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


def _detect_all(
    settings: InferSettings,
    table: ResultTable,
    package: "ModelPackage",
    constants: dict[str, Any],
    work: Path,
    plan: Plan,
    plan_when_held: Callable[[], Plan],
) -> tuple[Plan, int, int]:
    """Run the planned images through the cluster and commit their rows under the fence.

    Returns:
        The plan as it was when the table was held, and how many were ok and failed.
    """
    from pipeline.cluster import cluster
    from pipeline.stream import results

    fence = Fence(table, constants["run_id"], settings.commit_interval_s)
    if table.exists:
        fence.wait_until_free(settings.take_over)
    with cluster(settings.address):
        table.create(plan.path_columns)
        with fence.held(settings.take_over), Committer(table, fence, settings.commit_interval_s) as committer:
            plan = plan_when_held()
            with (
                table.working_file(work, f"{constants['run_id']}.parquet") as work_url,
                closing(Progress(plan.planned)) as progress,
            ):
                for rows in results(
                    work_url,
                    plan.planned,
                    package,
                    constants,
                    table.schema,
                    num_detectors=settings.num_detectors,
                    batch_size=settings.batch_size,
                    max_pixels=settings.max_pixels,
                ):
                    committer.put(rows)
                    failed = pc.sum(pc.equal(rows["status"], "failed")).as_py() or 0
                    progress.update(rows.num_rows, failed)
    return plan, progress.done - progress.failed, progress.failed
