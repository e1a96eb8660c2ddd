"""A job as it is submitted: one command of a spec, for one night."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim
from pydantic import BaseModel

from jobs.job_settings import KINDS, JobSettings
from jobs.spec import Spec, check_settings, given, kind_of
from pipeline import storage
from pipeline.errors import SettingError
from pipeline.settings import InferSettings

WRITTEN = ("table", "output", "storage", "page", "tensorboard")
"""Settings that say where something is written: on a cluster, a relative path would be in a folder that goes with the job."""


@dataclass(frozen=True)
class Job:
    """What is submitted for a night.

    kind: the command; name: in the submission id; day: of the night, in its time zone; settings: the command's, checked.
    """

    kind: str
    name: str
    day: date
    settings: BaseModel
    job: JobSettings
    folder: Path

    def submission_id(self, attempt: int) -> str:
        """The same for all who submit this attempt."""
        return f"{self.name}-{self.day}-{attempt}"

    @property
    def due_at(self) -> str | None:
        """When the schedule wants the night to begin; None where it wants none on this day."""
        if self.job.schedule is None:
            return None
        midnight = datetime.combine(self.day, clock(), ZoneInfo(self.job.time_zone))
        due = next(CronSim(self.job.schedule, midnight - timedelta(minutes=1)))
        return due.isoformat() if due.date() == self.day else None

    @property
    def entrypoint(self) -> str:
        """The command with all that was set, for the head node's shell: as anyone may run it there."""
        values = self.settings.model_dump(mode="json", exclude_unset=True) | {"address": "auto"}
        if "address" not in type(self.settings).model_fields:
            del values["address"]
        if isinstance(self.settings, InferSettings) and not (self.settings.dates or self.settings.run_date):
            values |= {"run_date": str(self.day), "due_at": self.due_at}
        flags = [flag for name, value in values.items() for flag in as_flags(name, value)]
        return shlex.join(["python", "-m", "jobs", self.kind, *flags])


def as_flags(name: str, value: Any) -> Iterator[str]:
    """A setting as flags of the command line."""
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return
    if isinstance(value, bool):
        yield flag if value else f"--no-{flag[2:]}"
    elif isinstance(value, list):
        yield from (f"{flag}={part}" for part in value)
    else:
        yield f"{flag}={value}"


def load_job(spec: Spec, day: date | None, flags: dict[str, Any], job_flags: dict[str, Any]) -> Job:
    """The job of a spec.

    Args:
        spec: which command, its settings, and the job's.
        day: of the night; today, where the schedule is, unless given.
        flags: override the command's settings.
        job_flags: override the job's.

    Raises:
        SettingError: whatever the command itself would refuse, a spec without a kind, or paths that a cluster can't use.
    """
    kind = kind_of(spec)
    job = check_settings(JobSettings, spec.job.model_dump(exclude_unset=True) | given(job_flags))
    settings = check_settings(KINDS[kind], spec.settings | given(flags))
    check_paths(settings)
    if job.working_dir and job.image:
        raise SettingError("working_dir: the image has the code already; give one of the two")
    day = day or datetime.now(ZoneInfo(job.time_zone)).date()
    return Job(kind, job.name or name_of(spec), day, settings, job, spec.path.parent)


def name_of(spec: Spec) -> str:
    """The spec's file name, as a job's may be."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in spec.path.stem.lower())
    return check_settings(JobSettings, {"name": name.strip("-")}).name or ""


def check_paths(settings: BaseModel) -> None:
    """Raise where something would be written to a folder that goes with the job."""
    for name in WRITTEN:
        url = getattr(settings, name, None)
        if url and storage.is_local(url) and not Path(url.removeprefix("file://")).is_absolute():
            raise SettingError(
                f"{name}: {url!r} would lie in a folder of the head node that goes with the job; give a URL, or an "
                "absolute path that all nodes reach"
            )
