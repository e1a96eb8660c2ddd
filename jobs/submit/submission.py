"""The submission of a job: one command of a spec, for one night."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim
from pydantic import BaseModel

from jobs.specs.load import Spec, check_settings, given, kind_of
from jobs.specs.settings import SPEC_KINDS, JobSettings
from pipeline.errors import SettingError
from pipeline.inference.settings import InferSettings
from pipeline.training.settings import RANDOM
from pipeline.urls import is_local

MADE_UP_WITHIN = timedelta(hours=12)
"""The time after yesterday's last due time in which a job still belongs to yesterday, unless the next due time is nearer."""
PLACES = (
    "table", "output", "storage", "page", "report", "label_errors", "tensorboard", "input", "data", "delete_uri", "delete_uris",
)  # fmt: skip
"""The settings that are paths or URLs.

On a cluster, a relative path would be in a folder that has only the code, and that is removed with the job.
"""
SHIPPED_MODEL = PurePath("jobs/demo/model")
"""The one model that goes with the code."""
MODELS = ("model", "init", "class_names")
"""The settings that may be paths within the code, or within the job's image."""


@dataclass(frozen=True)
class Submission:
    """The command of a spec, to be submitted for a night."""

    kind: str
    """The command's name."""
    name: str
    """The job's name, in its submission id."""
    day: date
    """The date of the night, in the schedule's time zone."""
    command: BaseModel
    """The command's settings, checked."""
    settings: JobSettings
    """The job's own settings, checked."""
    folder: Path
    """The folder of the spec, which `working_dir` is relative to."""
    due: datetime | None = None
    """The time at which the schedule wants the job; None where it wants none on this day."""

    def submission_id(self, attempt: int) -> str:
        """Return the id of an attempt, the same for everyone who submits it.

        Where a day has several jobs, the id contains the time at which the job was due.
        """
        is_one_of_several = self.due and self.settings.schedule and len(due_times(self.settings, self.day)) > 1
        night = f"{self.day}-{self.due:%H%M}" if is_one_of_several else f"{self.day}"
        return f"{self.name}-{night}-{attempt}"

    @property
    def entrypoint(self) -> str:
        """Return the command with all settings that were given, for the head node's shell. Anyone may run it there."""
        values = self.command.model_dump(mode="json", exclude_unset=True) | {"address": "auto"}
        if "address" not in type(self.command).model_fields:
            del values["address"]
        if isinstance(self.command, InferSettings) and not (self.command.dates or self.command.run_date):
            values |= {"run_date": str(self.day), "due_at": self.due.isoformat() if self.due else None}
        flags = [flag for name, value in values.items() for flag in as_flags(name, value)]
        return shlex.join(["python", "-m", "jobs", self.kind, *flags])


def as_flags(name: str, value: Any) -> Iterator[str]:
    """Yield a setting as flags of the command line."""
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return
    if isinstance(value, bool):
        yield flag if value else f"--no-{flag[2:]}"
    elif isinstance(value, dict):
        yield from (f"{flag}={key}={part}" for key, part in value.items())
    elif isinstance(value, list):
        yield from (f"{flag}={part}" for part in value)
    else:
        yield f"{flag}={value}"


def due_times(job: JobSettings, day: date) -> list[datetime]:
    """Return the times at which the schedule wants a job on a day, in its time zone."""
    if job.schedule is None:
        return []
    midnight = datetime.combine(day, clock(), ZoneInfo(job.time_zone))
    return list(takewhile(lambda due: due.date() == day, CronSim(job.schedule, midnight - timedelta(minutes=1))))


def load_submission(spec: Spec, day: date | None, flags: dict[str, Any], job_flags: dict[str, Any]) -> Submission:
    """Return the submission of a spec for a night.

    Args:
        spec: the command, its settings, and the job's settings.
        day: the date of the night. On a given day, the job is due at the first time that the schedule names. Unless
            given, the night is the one of a job that begins now in the schedule's time zone; see `night_of`.
        flags: override the command's settings.
        job_flags: override the job's settings.

    Raises:
        SettingError: the command itself would refuse a setting, the spec has no kind, or a cluster can't use a path.
    """
    kind = kind_of(spec)
    job = check_settings(JobSettings, spec.job.model_dump(exclude_unset=True) | given(job_flags))
    settings = check_settings(SPEC_KINDS[kind], spec.settings | given(flags))
    check_paths(settings, job)
    if job.working_dir and job.image:
        raise SettingError("working_dir: the image has the code already; give one of the two")
    day, due = (day, due_times(job, day)) if day else night_of(job, datetime.now(ZoneInfo(job.time_zone)))
    return Submission(kind, job.name or name_of(spec), day, settings, job, spec.path.parent, due[0] if due else None)


def night_of(job: JobSettings, now: datetime) -> tuple[date, list[datetime]]:
    """Return the night of a job that begins now, and a list of due times, of which the job's own is the first.

    The night is today, and the job's due time is the last one that has passed. Where none has passed, the night is
    yesterday if its last job was due shortly before midnight; see `MADE_UP_WITHIN`.
    """
    today, yesterday = now.date(), now.date() - timedelta(days=1)
    due = due_times(job, today)
    if passed := [time for time in due if time <= now]:
        return today, passed[-1:]
    until_next = min([due[0] - now, MADE_UP_WITHIN] if due else [MADE_UP_WITHIN])
    if (before := due_times(job, yesterday)[-1:]) and now - before[0] < until_next:
        return yesterday, before
    return today, due


def name_of(spec: Spec) -> str:
    """Return the spec's file name as a valid name of a job."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in spec.path.stem.lower())
    return check_settings(JobSettings, {"name": name.strip("-")}).name or ""


def check_paths(settings: BaseModel, job: JobSettings) -> None:
    """Check that nothing would be read from, or written to, the folder of the head node that has a job's code.

    Raises:
        SettingError: a path is relative. Models may have one if it is shipped with the code, or if the job has an image.
    """
    for name in (*PLACES, *MODELS):
        value = getattr(settings, name, None) or ()
        for url in (value,) if isinstance(value, str) else value:
            if not is_local(url) or Path(url).is_absolute() or (name == "init" and url == RANDOM):
                continue
            if name in MODELS and (job.image or (job.working_dir and PurePath(url) == SHIPPED_MODEL)):
                continue
            raise SettingError(
                f"{name}: {url!r} would be in a folder of the head node that goes with the job; give a URL, or an "
                "absolute path that all nodes reach"
            )
