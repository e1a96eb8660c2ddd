"""The settings of `infer` and `canary`; flags, specs and the schema are made from these classes."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from pipeline.settings import LOCAL, LOCAL_RAY, InputSettings

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


def _check_path_columns(setting: str) -> str:
    from pipeline.inference.path_columns import check_setting  # with DuckDB, which --help does not need

    return check_setting(setting)


class InferSettings(InputSettings):
    """Every knob of a run."""

    table: Annotated[str, Field(min_length=1)]
    """Delta table of results, local or s3://; made when there is none."""
    model: Annotated[str, Field(min_length=1)]
    """Model package: a folder with model.json and model.safetensors; or a published one, as models/blood/latest."""
    since: Moment | None = None
    """Take only images modified at or after this time (ISO 8601; UTC unless it says otherwise); those without a time are taken."""
    until: Moment | None = None
    """Take only images modified before this time."""
    run_date: date | None = None
    """The rows' run_date; today, in UTC, unless given."""
    due_at: Moment | None = None
    """When the schedule wanted the run to start: how late it was is in its record, and in metrics. `submit` sets it."""
    dates: Annotated[str, AfterValidator(check_dates)] | None = None
    """Days, first and last, as 2026-01-01/2026-01-31: a run for each, of the images modified on it (UTC), under its run_date. Started again, days that are done plan nothing."""
    max_planned: Annotated[int, Field(ge=1)] | None = None
    """Stop before anything is started when more images than this are planned: a new model plans everything again."""
    backfill: bool = False
    """Never mind max_planned this time."""
    path_columns: Annotated[str, AfterValidator(_check_path_columns)] = "hive"
    """Columns from folders: "hive" takes names like camera=7/ by themselves; a template such as "{site}/cam-{camera:int}/{date}" stands for the folders above the file; "none" takes none."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Days on which an image is tried that fails by itself: it is gone or too large, or ends its process. What fails for what is around it, such as storage, memory or a GPU, is tried again by each run."""
    retry_failed: bool = False
    """Try all failed images once more, those that failed for good too."""
    stage: Stage | None = None
    """With --retry-failed: only those that failed in this stage, fetch, decode or detect."""
    commit_interval_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds between commits: what a crash can lose. A run that does not commit for three of them is held for dead."""
    take_over: bool = False
    """Take the table from another run at once, even from one that lives: that one stops."""
    price_per_node_hour: Annotated[float, Field(ge=0)] | None = None
    """What a node of the cluster costs an hour, in any unit: then the run's record has costs, and --dry-run tells them before."""
    max_cost: Annotated[float, Field(ge=0)] | None = None
    """Stop before anything is started when the run would cost more than this, as fast as the table's last run; and a running one when it has. Needs price_per_node_hour; of dates, each day's run has it."""
    max_failed_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Exit with 3 when of the planned images a larger share than this failed: 0.01 is one of a hundred. All is committed, and the run is not named as the last complete one. Unless given, 0.5 of those tried for the first time; of less than 20, failures that are the images' own do not count. A run in which most of a thousand images fail alike is stopped."""
    dry_run: bool = False
    """Plan, count, tell hours and money as fast as the table's last run, and stop."""

    @model_validator(mode="after")
    def _stage_of_a_retry(self) -> "InferSettings":
        if self.stage and not self.retry_failed:
            raise ValueError("stage says which failures to retry; give --retry-failed too")
        return self

    @model_validator(mode="after")
    def _price_of_a_limit(self) -> "InferSettings":
        if self.max_cost is not None and self.price_per_node_hour is None:
            raise ValueError(f"max_cost {self.max_cost:g} can't be held without a price; give price_per_node_hour too")
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


class CanarySettings(InputSettings):
    """Which models are compared, on what."""

    model: Annotated[str, Field(min_length=1)]
    """Model package that may become the nightly one."""
    against: Annotated[str, Field(min_length=1)]
    """Model package that is the nightly one, as models/blood/latest."""
    sample: Annotated[int, Field(ge=1)] | None = 1000
    """Take only so many of the listed images: whichever a hash of their names picks, the same ones each time."""
    table: str | None = None
    """Table for what both detect, local or s3://, which all nodes must reach; a temporary one on this machine unless given."""
    score_thresh: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Detections below this score do not count."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    """Exit with 3 when the models agree in a smaller share of the images than this."""
    output: str | None = None
    """Page to write, with pictures of what differs most: one HTML file, by path or URL."""

    @model_validator(mode="after")
    def _table_for_a_cluster(self) -> "CanarySettings":
        if self.address not in (LOCAL, LOCAL_RAY) and self.table is None:
            raise ValueError(f"the nodes of address {self.address!r} can't reach a temporary table; give table too")
        return self
