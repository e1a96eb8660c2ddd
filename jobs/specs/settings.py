"""The settings of a spec next to its command's: which command it is for, and how it is submitted to a cluster."""

from datetime import datetime
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, Field

from model.config import Frozen
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.inference.settings import InferSettings
from pipeline.redaction import SECRET_NAME
from pipeline.settings import Metavar
from pipeline.table.settings import MaintainSettings
from pipeline.training.settings import TrainSettings

SPEC_KINDS: dict[str, type[BaseModel]] = {
    "infer": InferSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "maintain": MaintainSettings,
}
"""The commands that a spec can be for, and their settings."""


def _check_cron(expression: str) -> str:
    try:
        CronSim(expression, datetime.now())
    except CronSimError as error:
        raise ValueError(f"is no cron expression such as 30 1 * * * ({error})") from error
    return expression


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("is no time zone such as Europe/Berlin") from error
    return name


def _check_no_secret(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if SECRET_NAME.search(name) and not name.upper().endswith("_FILE"):  # AWS_WEB_IDENTITY_TOKEN_FILE names a place
            raise ValueError(f"{name} looks like a secret, which a spec never has: give it to the nodes themselves")
    return variables


class AlertSettings(Frozen):
    """The limits of alerts: when someone should look. `exporter` publishes them to Prometheus, whose rules are in
    infra/monitoring/alerts.yaml."""

    no_success_h: Annotated[float, Field(gt=0)] = 26.0
    """Hours without a complete run, after which the alert NoSuccess fires."""
    failed_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of a run's planned images that may fail before the alert ManyFailures fires."""
    slow_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the usual images per second, below which the alert Slow fires."""
    late_h: Annotated[float, Field(gt=0)] = 1.0
    """Hours that a run may start after it was due, before the alert Late fires."""
    long_h: Annotated[float, Field(gt=0)] = 12.0
    """Hours since the start of a run that has not ended, after which the alert TooLong fires."""


class JobSettings(Frozen):
    """The settings of a job: how it is submitted to a cluster, and when."""

    heading: ClassVar[str] = "Job"

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"), Metavar("NAME")] | None = None
    """Name of the job, used in its submission id. If not set: the spec's file name."""
    address: Annotated[str, Field(pattern=r"^https?://"), Metavar("URL")] = "http://127.0.0.1:8265"
    """URL of the cluster's job server, which is the head node's dashboard."""
    working_dir: Annotated[str, Metavar("FOLDER")] | None = None
    """Working tree of ssd-batch, relative to the spec. Its code is uploaded, and nothing else of it. If not set, the
    nodes must have ssd-batch installed."""
    excludes: tuple[Annotated[str, Metavar("PATTERN")], ...] = ()
    """Files of the code not to upload, as .gitignore patterns."""
    max_package_mib: Annotated[float, Field(gt=0, le=500)] = 50.0
    """Largest size of the zipped code, in MiB. A larger package is refused."""
    image: Annotated[str, Metavar("IMAGE")] | None = None
    """Container image to run the job in, with ssd-batch installed. The nodes must have podman. The container sees no
    folder of its node, and of its environment only env_vars: S3 needs a role of the machine, or files in the image."""
    env_vars: Annotated[dict[str, str], AfterValidator(_check_no_secret)] = Field(default_factory=dict)
    """Environment variables of all processes of a job that `submit` starts. Kubernetes and the exporter do not read them.
    Secrets do not belong here; give them to the nodes."""
    driver_cpus: Annotated[float, Field(ge=0)] = 0.0
    """Cores to reserve for the job's driver. 0 runs the driver on the head node."""
    schedule: Annotated[str, AfterValidator(_check_cron), Metavar("CRON")] | None = None
    """Times at which the job is due, as a cron expression such as 30 1 * * *. See infra/ for what calls `submit` at these times."""
    time_zone: Annotated[str, AfterValidator(_check_zone), Metavar("ZONE")] = "UTC"
    """Time zone of the schedule, and of the date of a night."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of attempts per night that `submit --wait` makes."""
    backoff_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Seconds before the second attempt. The time doubles before each later one."""
    alerts: AlertSettings = AlertSettings()
    """Limits of alerts: when someone should look."""
