"""What a run can be told; flags and specs derive from this."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from model.config import Frozen
from pipeline.path_columns import HIVE, check_setting

Stage = Literal["fetch", "decode", "detect"]
Moment = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]


def days(dates: str) -> list[date]:
    """From the first to the last.

    Raises:
        ValueError: these are no two dates in order.
    """
    first, separator, last = dates.partition("/")
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last if separator else first)
    except ValueError as error:
        raise ValueError(f"give a day or the first and the last, as 2026-01-01/2026-01-31 ({error})") from error
    if end < start:
        raise ValueError(f"the last day is before the first; give {last}/{first}")
    return [start + timedelta(days=number) for number in range((end - start).days + 1)]


def check_dates(dates: str) -> str:
    """A setting that can be used, as it is; raises as `days`."""
    days(dates)
    return dates


class ClusterSettings(Frozen):
    """Where work is done."""

    address: str = "local"
    """Ray cluster: an address, "auto" for the one this machine belongs to, "local" for one of its own on this machine."""


class DetectionSettings(ClusterSettings):
    """How the cluster detects, in a run and in an evaluation."""

    num_detectors: Annotated[int, Field(ge=0)] = 0
    """Detector actors; 0 = one a GPU, or one a core where there is no GPU."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Images a forward pass."""


class InferSettings(DetectionSettings):
    """Every knob of a run."""

    input: Annotated[tuple[str, ...], Field(min_length=1)]
    """Folder, glob, s3://bucket/prefix, any fsspec URL, or a manifest (.parquet, .csv, .jsonl with a column uri); may be given several times."""
    table: Annotated[str, Field(min_length=1)]
    """Delta table of results, local or s3://; made when there is none."""
    model: Annotated[str, Field(min_length=1)]
    """Model package: a folder with model.json and model.safetensors; or a published one, as models/blood/latest."""
    all_files: bool = False
    """Take all files of folders and prefixes, not only those with an image's suffix."""
    since: Moment | None = None
    """Take only images modified at or after this time (ISO 8601; UTC unless it says otherwise); those without a time are taken."""
    until: Moment | None = None
    """Take only images modified before this time."""
    run_date: date | None = None
    """The rows' run_date; today, in UTC, unless given."""
    dates: Annotated[str, AfterValidator(check_dates)] | None = None
    """Days, first and last, as 2026-01-01/2026-01-31: a run for each, of the images modified on it (UTC), under its run_date. Started again, days that are done plan nothing."""
    max_planned: Annotated[int, Field(ge=1)] | None = None
    """Stop before anything is started when more images than this are planned: a new model plans everything again."""
    backfill: bool = False
    """Never mind max_planned this time."""
    path_columns: Annotated[str, AfterValidator(check_setting)] = HIVE
    """Columns from folders: "hive" takes names like camera=7/ by themselves; a template such as "{site}/cam-{camera:int}/{date}" stands for the folders above the file; "none" takes none."""
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
    full_plan: bool = False
    """Look up all that is listed in the table, also what is older than the last complete run of the same S3 inputs and model."""
    dry_run: bool = False
    """Plan, count and stop."""

    @model_validator(mode="after")
    def _stage_of_a_retry(self) -> "InferSettings":
        if self.stage and not self.retry_failed:
            raise ValueError("stage says which failures to retry; give --retry-failed too")
        return self

    @model_validator(mode="after")
    def _days_of_their_own(self) -> "InferSettings":
        if self.dates and (self.since or self.until or self.run_date):
            raise ValueError("dates sets since, until and run_date for each day; give it without them")
        return self

    @property
    def retried_stages(self) -> tuple[str, ...]:
        """Failures of these stages are tried again, whatever they were."""
        if not self.retry_failed:
            return ()
        return (self.stage,) if self.stage else get_args(Stage)
