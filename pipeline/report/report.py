"""The facts of a report on one run."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SettingError
from pipeline.report.counts import RunCounts, count_runs, count_sizes
from pipeline.report.drift import Shift, find_shifts
from pipeline.report.images import Cause, Choice, ImageToShow, choose_images, find_causes
from pipeline.report.places import find_places
from pipeline.report.settings import ReportSettings
from pipeline.table.delta import ResultTable
from pipeline.table.find_runs import Record, find_run, list_runs

NUM_EARLIER, MAX_EARLIER_IMAGES = 10, 2_000_000
"""The earlier runs that a run is compared with: this many, or fewer if they have more images together. One at least."""
NUM_LISTED = 500
"""The number of last runs among which they are looked for."""
NUM_SIZE_BINS = 20
NUM_CAUSES, NUM_URIS = 10, 3


@dataclass(frozen=True, eq=False)
class Report:
    """The facts about a run."""

    record: Record
    """The run's record."""
    counts: RunCounts
    earlier: list[RunCounts]
    """The counts of earlier runs of the same model, the oldest first."""
    records: dict[str, Record]
    """The records of all these runs, by ID."""
    previous_model: str | None
    """The digest of the model of the run before, if it was another one."""
    shifts: list[Shift]
    """The changes since earlier runs, the surest first."""
    sizes: NDArray[np.int64]
    """(NUM_SIZE_BINS,) int64, see `count_sizes`."""
    causes: list[Cause]
    """The most frequent causes of failures."""
    num_causes: int
    images: dict[Choice, list[ImageToShow]]
    min_score: float


def report(settings: ReportSettings) -> Report:
    """Collect the facts.

    Raises:
        SettingError: there is no table, no run has the ID, or no run of the table has ended.
    """
    table = ResultTable(settings.table)
    if not table.exists:
        raise SettingError(f"table {table.url!r}: no table is there; make one with `ssd-batch infer`")
    ended = [record for record in list_runs(table, NUM_LISTED) if record["outcome"] != "running"]
    if not settings.run and not ended:
        raise SettingError(f"table {table.url!r} has no run that ended")
    worked = (other for other in ended if other["outcome"] != "done" or other["ok"] or other["failed"])
    record = find_run(table, settings.run) if settings.run else next(worked, ended[0])
    before = [other for other in ended if other["run_id"] < record["run_id"] and (other["ok"] or other["failed"])]
    compared = _compared(record, before)
    records = {other["run_id"]: other for other in [*compared, record]}
    counted = {run.run_id: run for run in count_runs(table, list(records), settings.min_score)}
    for other in records.values():  # rows of failures go when another run retries them
        if other["failed"]:
            run_date = other["run_date"] or other["started_at"].date()
            run = counted.setdefault(other["run_id"], RunCounts(other["run_id"], run_date, 0, 0))
            run.num_failed = other["failed"]
    run_date = record["run_date"] or record["started_at"].date()
    counts = counted.pop(record["run_id"], None) or RunCounts(record["run_id"], run_date, 0, 0)
    runs = [*sorted(counted.values(), key=lambda run: run.run_id), counts]
    shifts = [replace(shift, places=find_places(table, runs, shift, settings.min_score)) for shift in find_shifts(runs)]
    causes, num_causes = find_causes(table, counts.run_id, NUM_CAUSES, NUM_URIS)
    is_new_model = bool(before) and before[0]["model_digest"] != record["model_digest"]
    return Report(
        record=record,
        counts=counts,
        earlier=runs[:-1],
        records=records,
        previous_model=before[0]["model_digest"] if is_new_model else None,
        shifts=shifts,
        sizes=count_sizes(table, counts.run_id, settings.min_score, NUM_SIZE_BINS),
        causes=causes,
        num_causes=num_causes,
        images=choose_images(table, counts, settings.min_score),
        min_score=settings.min_score,
    )


def _compared(record: Record, before: list[Record]) -> list[Record]:
    """Return the earlier runs to compare with, of the same model, from the newest on."""
    same_model = [other for other in before if other["model_digest"] == record["model_digest"]]
    compared: list[Record] = []
    num_images = 0
    for other in same_model[:NUM_EARLIER]:
        num_images += other["ok"] or 0
        if compared and num_images > MAX_EARLIER_IMAGES:
            break
        compared.append(other)
    return compared
