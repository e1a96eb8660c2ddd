"""The settings of `infer` and `canary`; flags, specs and the schema are made from these classes."""

from datetime import UTC, date, timedelta
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from model.config import Frozen
from model.package_files import BEST
from pipeline.settings import LOCAL, LOCAL_RAY, InputSettings, IsoDay, IsoTime, Metavar, Place, Url

Stage = Literal["fetch", "decode", "detect"]
Moment = Annotated[IsoTime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]


def days(dates: str) -> list[date]:
    """Return the days from the first to the last.

    Raises:
        ValueError: the text is neither a date nor two dates in order.
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
    """Return a setting that can be used, as it is; raises as `days`."""
    days(dates)
    return dates


def _check_path_columns(setting: str) -> str:
    from pipeline.inference.path_columns import check_setting  # with DuckDB, which --help does not need

    return check_setting(setting)


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


def _check_min_score(text: str) -> str:
    """Return a setting that can be used, as it is."""
    try:
        is_score = text == BEST or 0 <= float(text) < 1
    except ValueError:
        is_score = False
    if not is_score:
        raise ValueError(f"give a number from 0 to 1, such as 0.5, or {BEST}")
    return text


MinScore = Annotated[
    str,
    BeforeValidator(_as_text),
    AfterValidator(_check_min_score),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 1}, {"const": BEST}]}),
    Metavar("SCORE"),
]


PathColumns = Annotated[str, AfterValidator(_check_path_columns), Metavar("TEMPLATE")]


class SelectionSettings(Frozen):
    """The settings of which images a run takes, and of the columns that their paths give."""

    heading: ClassVar[str] = "Days and columns"

    since: Moment | None = None
    """Process only images modified at or after this time (ISO 8601, in UTC unless it has a zone). Images without a
    time are processed, too."""
    until: Moment | None = None
    """Process only images modified before this time, in the same format as since. Images without a time are processed, too."""
    run_date: IsoDay | None = None
    """Date to store as run_date in the rows of this run. If not set: today, in UTC."""
    due_at: Moment | None = None
    """Time at which the schedule wanted the run to start; `submit` sets it. The run's delay is stored in its record
    and published in metrics."""
    dates: Annotated[str, AfterValidator(check_dates), Metavar("DAY/DAY")] | None = None
    """Days to process, first and last, as 2026-01-01/2026-01-31. Each day is a run of its own, of the images
    modified on it (UTC), with the day as run_date. If the command is repeated, days that are done plan nothing."""
    path_columns: PathColumns = "hive"
    """Columns to make from folder names. "hive" reads names such as camera=7/, and "none" makes no columns. A
    template such as "{site}/cam-{camera:int}/{date}" describes the folders above the file."""


class FailureSettings(Frozen):
    """The settings of how failures are treated."""

    heading: ClassVar[str] = "Failures"

    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Number of days on which an image is tried that fails by itself: it is missing or too large, or ends its
    process. Failures of its surroundings, such as storage, memory or a GPU, are tried again by every run."""
    retry_failed: bool = False
    """Retry all failed images once, including those that failed for good."""
    stage: Stage | None = None
    """Stage whose failures retry_failed retries: fetch, decode or detect. If not set: all stages."""
    max_failed_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Exit with 3 if more than this share of the planned images failed, such as 0.01. All rows are committed, but
    the run does not become the last complete one. If not set: 0.5 of the images tried for the first time; among
    fewer than 20, failures of the images themselves do not count. A run stops early if most of 1000 fail alike."""


class LimitSettings(Frozen):
    """The settings of what a run may plan and cost."""

    heading: ClassVar[str] = "Limits"

    max_planned: Annotated[int, Field(ge=1)] | None = None
    """Stop before anything starts if more images than this are planned. This guards against a new model, which plans all images
    again. With dates, the limit is for each day's run."""
    backfill: bool = False
    """Ignore max_planned in this run."""
    price_per_node_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one cluster node per hour, in any currency. The run's record then has its cost, and dry_run estimates it."""
    max_cost: Annotated[float, Field(ge=0)] | None = None
    """Stop before anything starts if the run would cost more than this at the speed of the table's last run. A run
    that has cost more is stopped, too. Needs price_per_node_hour. With dates, the limit is for each day's run."""
    dry_run: bool = False
    """Plan without detecting, and estimate hours and cost from the speed of the table's last run."""


class InferSettings(InputSettings, LimitSettings, FailureSettings, SelectionSettings):
    """The settings of a run."""

    heading: ClassVar[str] = "Model and table"

    table: Url
    """Delta table of results, local or s3://. It is made if it does not exist."""
    model: Url
    """Model package: a folder with model.json and model.safetensors, or a published model such as models/blood/latest."""
    min_score: MinScore | None = None
    """Least score of the detections to keep. "best" takes, for each class, the score at which F1 was highest when the
    model was measured. Without it, the model's threshold counts: 0.01 as a rule, which also keeps much that is wrong.
    The digest in the rows stands for the score, too, so that other scores detect all images again."""
    commit_interval_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds between commits: a crash can lose this much work, and the blocks that detectors work on. A run that does
    not commit for three intervals is treated as dead."""
    take_over: bool = False
    """Take the table from another run at once, even if that run is alive; it then stops."""
    report: Place | None = None
    """HTML report to write when the run has ended, by path or URL. In a folder, which ends with a slash, its name is the run's ID;
    with dates, give a folder."""

    @model_validator(mode="after")
    def _stage_of_a_retry(self) -> "InferSettings":
        if self.stage and not self.retry_failed:
            raise ValueError("stage says which failures to retry; give --retry-failed too")
        return self

    @model_validator(mode="after")
    def _price_of_a_limit(self) -> "InferSettings":
        if self.max_cost is not None and self.price_per_node_hour is None:
            raise ValueError(
                f"max_cost {self.max_cost:g} can't be checked without a price; give price_per_node_hour too"
            )
        return self

    @model_validator(mode="after")
    def _days_of_their_own(self) -> "InferSettings":
        if self.dates and (self.since or self.until or self.run_date):
            raise ValueError("dates sets since, until and run_date for each day; give it without them")
        return self

    @property
    def retried_stages(self) -> tuple[str, ...]:
        """The stages whose failures are tried again, whatever they were."""
        if not self.retry_failed:
            return ()
        return (self.stage,) if self.stage else get_args(Stage)


class CanarySettings(InputSettings):
    """The settings of `canary`: which models are compared, and on which images."""

    heading: ClassVar[str] = "Models and comparison"

    model: Url
    """New model package, which may become the nightly one."""
    against: Url
    """Current nightly model package to compare with, such as models/blood/latest."""
    sample: Annotated[int, Field(ge=1)] | None = 1000
    """Process only this many images: a fixed sample, chosen by a hash of their URIs."""
    table: Place | None = None
    """Delta table for the results of both models, local or s3://, which all nodes must reach. If not set: a
    temporary one on this machine."""
    path_columns: PathColumns = "hive"
    """Columns to make from folder names, as in infer. Give the nights' own where table is the nights' table: the images
    of the sample count as done there."""
    score_thresh: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Ignore detections below this score."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    """Exit with 3 if the models agree in a smaller share of the images than this."""
    output: Place | None = None
    """HTML page to write, by path or URL: one file with pictures of the images that differ most."""

    @model_validator(mode="after")
    def _table_for_a_cluster(self) -> "CanarySettings":
        if self.address not in (LOCAL, LOCAL_RAY) and self.table is None:
            raise ValueError(f"the nodes of address {self.address!r} can't reach a temporary table; give table too")
        return self
