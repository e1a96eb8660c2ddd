"""What a spec may say beside a command's settings: which command it is for, and how a cluster is given the job."""

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, Field

from model.config import Frozen
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.inference.settings import InferSettings
from pipeline.redaction import SECRET_NAME
from pipeline.table.settings import MaintainSettings
from pipeline.training.settings import TrainSettings

SPEC_KINDS: dict[str, type[BaseModel]] = {
    "infer": InferSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "maintain": MaintainSettings,
}
"""Commands that a spec can be for, and their settings."""


def _check_cron(expression: str) -> str:
    try:
        CronSim(expression, datetime.now())
    except CronSimError as error:
        raise ValueError(f"is no cron expression such as 0 2 * * * ({error})") from error
    return expression


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("is no time zone such as Europe/Berlin") from error
    return name


def _check_no_secret(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if SECRET_NAME.search(name):
            raise ValueError(f"{name} looks like a secret, which a spec never has: give it to the nodes themselves")
    return variables


class AlertSettings(Frozen):
    """Say when someone should look. `exporter` tells Prometheus, whose rules are in infra/monitoring/alerts.yaml."""

    no_success_h: Annotated[float, Field(gt=0)] = 26.0
    """NoSuccess: hours since the last complete run."""
    failed_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """ManyFailures: of the images that a run has planned."""
    slow_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Slow: of the usual images/s."""
    late_h: Annotated[float, Field(gt=0)] = 1.0
    """Late: hours from when a run was due to its start."""
    long_h: Annotated[float, Field(gt=0)] = 12.0
    """TooLong: hours since a run has started that has no end."""


class JobSettings(Frozen):
    """Say how a job is given to a cluster, and when."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")] | None = None
    """The job's, in its submission id; the spec's file name unless given."""
    address: Annotated[str, Field(pattern=r"^https?://")] = "http://127.0.0.1:8265"
    """The cluster's job server: the head node's dashboard."""
    working_dir: str | None = None
    """Working tree of ssd-batch whose code is shipped, and nothing else of it, seen from the spec; without, the nodes have ssd-batch installed."""
    excludes: tuple[str, ...] = ()
    """What of the code stays, as patterns of .gitignore."""
    max_package_mib: Annotated[float, Field(gt=0, le=500)] = 50.0
    """A larger package, zipped, is refused."""
    image: str | None = None
    """Container image that the job runs in, with ssd-batch installed, on clusters whose nodes have podman."""
    env_vars: Annotated[dict[str, str], AfterValidator(_check_no_secret)] = Field(default_factory=dict)
    """Environment variables of all its processes; no secrets."""
    driver_cpus: Annotated[float, Field(ge=0)] = 0.0
    """Cores booked for the job's driver, which is on the head node where this is 0."""
    schedule: Annotated[str, AfterValidator(_check_cron)] | None = None
    """When it is due, as a cron expression; whatever calls `submit` at these times is told in infra/."""
    time_zone: Annotated[str, AfterValidator(_check_zone)] = "UTC"
    """Of the schedule, and of the date of a night."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts of a night that `submit --wait` makes."""
    backoff_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Seconds before the second attempt, twice as many before each later one."""
    alerts: AlertSettings = AlertSettings()
    """When someone should look."""
