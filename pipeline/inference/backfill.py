"""The backfill of a range of days, with one run per day. If it is stopped and started again, days that are done plan nothing."""

import logging
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pipeline.inference.prepare import RunTask
from pipeline.inference.run import execute
from pipeline.inference.settings import InferSettings, days
from pipeline.inference.summary import Summary
from pipeline.inputs.listing import list_inputs
from pipeline.registry.packages import read_files
from pipeline.table.delta import ResultTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackfillSummary(Summary):
    """The sum of the days' runs. Its run_id is that of the last run."""

    days: dict[str, Summary]
    """The summary of each day's run, by date (ISO 8601)."""


def backfill(settings: InferSettings) -> BackfillSummary:
    """Run each day of `settings.dates` over the images modified on it.

    All images are listed once, and all runs share a place of work.

    Raises:
        SsdBatchError: as `infer`, for the first day that fails; the days before it are done.
    """
    assert settings.dates
    started, dates = time.monotonic(), days(settings.dates)
    table, package = (
        ResultTable(settings.table),
        read_files(settings.model, settings.precision, settings.min_score, settings.test_time_flip),
    )
    summaries: dict[str, Summary] = {}
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder, ExitStack() as stack:
        listed = Path(folder, "days.parquet")
        since, until = midnight(dates[0]), midnight(dates[-1] + timedelta(days=1))
        skipped = list_inputs(settings.input, settings.all_files, listed, since, until)
        for day in dates:
            logger.info("day %s of %s", day, settings.dates)
            task = RunTask(_of_day(settings, day), ResultTable(table.url), package, Path(folder), listed)
            summaries[day.isoformat()] = execute(task, stack)
    wall_s = time.monotonic() - started
    num_done = sum(summary.ok + summary.failed for summary in summaries.values())
    return BackfillSummary(
        summaries[dates[-1].isoformat()].run_id,
        table.url,
        package.digest,
        skipped=skipped,
        **{
            name: sum(getattr(summary, name) for summary in summaries.values())
            for name in ("listed", "already_done", "planned", "ok", "failed")
        },
        wall_s=round(wall_s, 3),
        images_per_s=round(num_done / wall_s, 3),
        days=summaries,
    )


def _of_day(settings: InferSettings, day: date) -> InferSettings:
    """Return the settings that a person would give to run this day alone."""
    between = {"since": midnight(day), "until": midnight(day + timedelta(days=1))}
    return settings.model_copy(update={"dates": None, "run_date": day} | between)


def midnight(day: date) -> datetime:
    """Return the time at which a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
