"""The run from start to end: prepare it, detect and commit what is planned, and reconcile the table with the plan."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from deltalake.exceptions import DeltaError

from model.package_files import PackageError
from pipeline import logs
from pipeline.errors import TargetMissedError, ended_by
from pipeline.inference.cost import Cost
from pipeline.inference.failures import Failures
from pipeline.inference.plan import Plan, reconcile, tally
from pipeline.inference.prepare import Prepared, RunTask, check_limits, dry_run, prepare
from pipeline.inference.settings import InferSettings
from pipeline.inference.summary import Summary, explain
from pipeline.progress import Progress
from pipeline.redaction import redacted_json
from pipeline.registry.packages import read_files, unusable
from pipeline.signals import on_stop
from pipeline.stages.place import place, works_here
from pipeline.stages.rows import DECODED, IS_FIRST, PlanRows
from pipeline.stages.runner import FetchAndDecode, Runner, RunObserver, Stages, results, started
from pipeline.stages.timings import METERS, Meters
from pipeline.table.commit import Committer
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence
from pipeline.table.run_records import RunRecord, recorded
from pipeline.table.schema import IS_RETRY
from pipeline.table.versions import note_versions

logger = logging.getLogger(__name__)


def infer(settings: InferSettings) -> Summary:
    """Detect in the images that the table does not hold yet.

    Raises:
        SettingError: a setting can't be used; it is raised before anything is started or written.
        TargetMissedError: more images failed than may, or most of the last thousand failed alike. Everything that was done is in
            the table.
        ReconciliationError: rows are missing at the end. The rows in the table stay, and the next run does the rest.
    """
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder, ExitStack() as stack:
        files = read_files(settings.model, settings.precision, settings.min_score, settings.test_time_flip)
        task = RunTask(settings, ResultTable(settings.table), files, Path(folder))
        return execute(task, stack)


def execute(task: RunTask, stack: ExitStack) -> Summary:
    """Do a run, from listing to reconciliation; raises as `infer`.

    Args:
        task: the task of the run.
        stack: keeps the place of work that the run enters, until the owner of the stack leaves it. The next run uses the place too.
    """
    with logs.of_run(task.run_id):
        try:
            prepared = prepare(task)
            logger.info("%s", explain(prepared.plan, prepared.skipped))
            if task.settings.dry_run:
                return dry_run(prepared)
            check_limits(prepared)
            if prepared.plan.planned:
                _check_readable(prepared.plan)
                return _detect(prepared, stack)
            if not task.table.exists:
                return prepared.summary()
            with _recorded(task) as record:
                return _summary(prepared, record)
        except (OSError, DeltaError) as error:  # for example, a full disk
            raise ended_by(f"table {task.table.url!r}: what was committed stays, and the run ended", error) from error


def _check_readable(plan: Plan) -> None:
    if plan.buckets:
        from pipeline.storage import s3

        for bucket in plan.buckets:
            s3.check_images_readable(bucket)


def _recorded(task: RunTask) -> AbstractContextManager[RunRecord]:
    record = RunRecord(
        **task.constants,
        lag_s=task.lag_s,
        settings=json.dumps(redacted_json(task.settings.model_dump(mode="json"))),
    )
    return recorded(task.table, record, is_whole=not task.settings.sample)


def _summary(prepared: Prepared, record: RunRecord, ok: int = 0, failed: int = 0) -> Summary:
    """Return the summary of what was done, and put it into the run's record."""
    summary = prepared.summary(ok, failed)
    record.count(**prepared.counts())
    record.ok, record.failed = ok, failed
    record.wall_s, record.images_per_s = summary.wall_s, summary.images_per_s
    return summary


def _detect(prepared: Prepared, stack: ExitStack) -> Summary:
    """Start the runner, hold the table, and do what is planned."""
    task = prepared.task
    settings, table = task.settings, task.table
    fence = Fence(table, task.run_id, settings.commit_interval_s)
    if table.exists:
        fence.wait_until_free(settings.take_over)
    stack.enter_context(place(settings))
    stages = _stages(prepared)
    with _started(task, stages, prepared.plan.planned) as runner:
        table.create()
        with fence.held(settings.take_over), _recorded(task) as record:
            record.runner = runner.name
            if new := table.lacking(prepared.plan.path_columns):
                fence.commit(lambda properties: table.add_columns(new, properties))
            return Execution(prepared, runner, stages, fence, record).execute()


@contextmanager
def _started(task: RunTask, stages: Stages, num_planned: int) -> Iterator[Runner]:
    with ExitStack() as stack:
        try:
            runner = stack.enter_context(started(task.settings, stages, num_planned))
        except PackageError as error:
            raise unusable(task.settings.model, error) from error
        yield runner


def _stages(prepared: Prepared) -> Stages:
    task, table, record = prepared.task, prepared.task.table, prepared.task.package.record
    image_size_px = record.architecture.image_size_px
    new_columns = [field for field in prepared.plan.path_columns if field.name not in table.schema.names]
    return Stages(
        read=PlanRows(str(task.work) if works_here(task.settings) else table.working_url(_shared_name(task))),
        decode=FetchAndDecode(image_size_px, task.settings.max_pixels, record.preprocessing.min_side_px(image_size_px)),
        decoded=DECODED,
        package_files=task.package.content,
        batch_size=task.settings.batch_size,
        precision=task.settings.precision,
        num_images=prepared.plan.planned,
        constants=task.constants,
        schema=pa.schema([*table.schema, *new_columns, *METERS, (IS_RETRY, pa.bool_()), (IS_FIRST, pa.bool_())]),
    )


def _shared_name(task: RunTask) -> str:
    """Return the name of the file of planned images next to the table, where the nodes of a cluster read it."""
    return f"{task.run_id}.parquet"


class Execution:
    """The execution of a run, which holds the table.

    Args:
        prepared: the prepared run; it is planned once more if another run has ended since.
        runner: does the work on the images.
        stages: the stages that each image passes.
        fence: keeps other runs from writing.
        record: gets what was done, however the run ends.
    """

    def __init__(self, prepared: Prepared, runner: Runner, stages: Stages, fence: Fence, record: RunRecord) -> None:
        self._prepared = prepared
        self._runner = runner
        self._stages = stages
        self._fence = fence
        self._record = record
        self._task = prepared.task
        self._failures = Failures(self._task.settings.max_failed_share)

    def execute(self) -> Summary:
        """Commit what is planned, and check the table at the end; raises as `infer`."""
        try:
            ok, failed = self._commit_all()
            return self._reconciled(ok, failed)
        except TargetMissedError:
            if self._failures.are_systemic:
                task = self._task
                self._fence.commit(lambda properties: task.table.uncount(task.run_id, task.run_date, properties))
            raise

    def _reconciled(self, ok: int, failed: int) -> Summary:
        """Check the table at the end, and return the summary of the run."""
        task = self._task
        summary = _summary(self._prepared, self._record, ok, failed)
        with self._committer():  # keeps the hold on the table while all rows are counted
            table = ResultTable(task.table.url)
            found = tally(task.listing, table, task.package.digest)
            note_versions(table)
        reconcile(self._prepared.plan, ok, failed, found)
        self._failures.check(summary)
        return summary

    def _committer(self, took: Callable[[float], None] = lambda seconds: None) -> Committer:
        return Committer(self._task.table, self._fence, self._task.settings.commit_interval_s, took)

    def _commit_all(self) -> tuple[int, int]:
        """Commit what is planned, once per interval, and return how many images were ok and failed."""
        task = self._task
        observer = self._runner.observer(task.table.url)
        committer = self._committer(observer.committed)
        try:
            with committer, on_stop(committer.stop), ExitStack() as while_running:
                if (
                    ResultTable(task.table.url).data_files() != self._prepared.data_files
                ):  # Another run has ended since.
                    self._prepared = replace(self._prepared, plan=task.plan())
                self._record.count(**self._prepared.counts())
                if not works_here(task.settings):
                    while_running.enter_context(task.table.working_file(task.work, _shared_name(task)))
                return self._stream(committer, observer)
        finally:
            self._record.commit_s = committer.commit_s

    def _stream(self, committer: Committer, observer: RunObserver) -> tuple[int, int]:
        """Send what is planned through the stages, and return how many images were ok and failed.

        The time and the cost are recorded, however the stream ends.
        """
        settings, num_planned, started_s = self._task.settings, self._prepared.plan.planned, self._task.started_s
        spread = self._runner.spread(num_planned)
        observer.begin(num_planned, spread.num_detectors, self._task.lag_s)
        meters = Meters(started_s, spread.num_detectors)
        cost = Cost(
            settings.price_per_node_hour,
            settings.max_cost,
            self._runner.num_nodes,
            started_s,
            settings.commit_interval_s,
        )
        with (
            closing(Progress(num_planned)) as progress,
            closing(results(self._runner, num_planned, self._stages, spread)) as all_rows,
        ):
            try:
                for rows in all_rows:
                    observer.add(rows)
                    committer.put(meters.take(rows))
                    progress.update(rows.num_rows, self._failures.take(rows))
                    cost.check()
            finally:
                meters.record(self._record)
                cost.record(self._record, progress.done)
        return progress.done - progress.failed, progress.failed
