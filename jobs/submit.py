"""Jobs on a cluster: submitted, followed, stopped, through Ray's job server."""

import asyncio
import shlex
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import requests
from cronsim import CronSim
from pydantic import BaseModel
from ray._private.runtime_env.packaging import create_package
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from jobs.job_settings import KINDS, JobSettings
from jobs.spec import Spec, check_settings, given, kind_of
from pipeline import storage
from pipeline.errors import HeldError, SettingError, SsdBatchError, reason
from pipeline.settings import InferSettings

WRITTEN = ("table", "output", "storage", "page", "tensorboard")
"""Settings that say where something is written: on a cluster, a relative path would be in a folder that goes with the job."""
NOT_AGAIN = (2, 3, 4, 5)
"""Exit codes after which another attempt would end in the same way, or take from who overtook; see `pipeline.errors`."""
POLL_S = 1.0
SILENCE_S = 120.0
"""A job server that does not answer for so long is given up; its head node may be starting again."""
STOP_TIMEOUT_S = 60.0
MIB = 2**20
NUM_NAMED = 3


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


@dataclass(frozen=True)
class Ended:
    """How an attempt ended. exit_code: of the command, 0 to 5; 1 where it has none, such as a job that was stopped."""

    submission_id: str
    status: str
    exit_code: int


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


class JobServer:
    """Ray's, by its address; what goes wrong with it is told in one line.

    Raises:
        SettingError: nothing answers there, or it does not let us in.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        with self._explained():
            self._client = JobSubmissionClient(self._address)

    def submit(self, job: Job) -> str:
        """Begin the next attempt of a night: its submission id.

        Raises:
            HeldError: an earlier attempt is pending, running, or succeeded.
            SettingError: the package is too large.
        """
        attempt = 1
        while details := self.find(job.submission_id(attempt)):
            if details.status not in (JobStatus.FAILED, JobStatus.STOPPED):
                raise HeldError(
                    f"{details.submission_id} is {details.status.lower()}: the night of {job.day} needs no other attempt"
                )
            attempt += 1
        return self._begin(job, job.submission_id(attempt))

    def _begin(self, job: Job, submission_id: str) -> str:
        with runtime_env(job) as environment, self._explained():
            try:
                return self._client.submit_job(
                    entrypoint=job.entrypoint,
                    submission_id=submission_id,
                    runtime_env=environment,
                    entrypoint_num_cpus=job.job.driver_cpus or None,
                    metadata={"ssd_batch_job": job.name, "ssd_batch_date": str(job.day), "ssd_batch_kind": job.kind},
                )
            except RuntimeError as error:
                if self.find(submission_id):
                    raise HeldError(f"{submission_id} was submitted by another at the same time") from error
                raise

    def find(self, submission_id: str) -> JobDetails | None:
        """A job; None where the server knows none of this id."""
        return next((some for some in self.jobs() if some.submission_id == submission_id), None)

    def details(self, submission_id: str) -> JobDetails:
        """A job.

        Raises:
            SettingError: the server knows none of this id.
        """
        if details := self.find(submission_id):
            return details
        raise SettingError(f"ID: no job {submission_id!r} at {self._address}; ssd-batch status lists them")

    def jobs(self) -> list[JobDetails]:
        """All that were submitted, by anyone, the last first."""
        with self._explained():
            found: list[JobDetails] = self._client.list_jobs()
        submitted = [some for some in found if some.submission_id]
        return sorted(submitted, key=lambda some: some.start_time or 0, reverse=True)

    def logs(self, submission_id: str) -> str:
        """All that a job has printed so far."""
        self.details(submission_id)
        with self._explained():
            text: str = self._client.get_job_logs(submission_id)
        return text

    def follow(self, submission_id: str, show: Callable[[str], None]) -> Ended:
        """Show what a job prints until it ends, through outages of the server.

        Raises:
            SsdBatchError: the server stays away, or has forgotten the job.
        """
        log = Log(show)
        while not (details := self._patiently(submission_id)).status.is_terminal():
            self._tail(submission_id, log)
            time.sleep(POLL_S)
        log.show_from(0, self.logs(submission_id))
        return ended(details)

    def stop(self, submission_id: str) -> Ended:
        """Stop a job, which commits what is finished first; returns when it has ended."""
        self.details(submission_id)
        with self._explained():
            self._client.stop_job(submission_id)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not (details := self.details(submission_id)).status.is_terminal():
            if time.monotonic() > deadline:
                raise SsdBatchError(f"{submission_id} is still {details.status.lower()} after {STOP_TIMEOUT_S:g} s")
            time.sleep(POLL_S)
        return ended(details)

    def _tail(self, submission_id: str, log: "Log") -> None:
        """Follow a job's log as long as the connection holds."""

        async def tail() -> None:
            num_seen = 0
            async for text in self._client.tail_job_logs(submission_id):
                log.show_from(num_seen, text)
                num_seen += len(text)

        with suppress(OSError, RuntimeError, aiohttp.ClientError):
            asyncio.run(tail())

    def _patiently(self, submission_id: str) -> JobDetails:
        """A job, asked for again while nothing answers."""
        deadline = time.monotonic() + SILENCE_S
        while True:
            try:
                return self.details(submission_id)
            except SettingError as error:
                if time.monotonic() > deadline:
                    raise SsdBatchError(f"{submission_id} is out of sight: {error}") from error
                time.sleep(POLL_S)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise SettingError(
                f"address {self._address!r}: the cluster asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here as there"
            ) from error
        except (ConnectionError, requests.RequestException) as error:
            raise SettingError(
                f"address {self._address!r}: no job server answers there ({reason(error)}); it is the head node's dashboard, port 8265"
            ) from error


class Log:
    """What of a job's log has been shown: each time it is followed it begins anew."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._num_shown = show, 0

    def show_from(self, start: int, text: str) -> None:
        """Show what is new of a part of the log that begins at a character."""
        if new := text[max(0, self._num_shown - start) :]:
            self._show(new)
            self._num_shown = start + len(text)


def ended(details: JobDetails) -> Ended:
    """Of a job that has ended."""
    succeeded = details.status == JobStatus.SUCCEEDED
    return Ended(details.submission_id or "", str(details.status), 0 if succeeded else details.driver_exit_code or 1)


def submit_and_wait(server: JobServer, job: Job, announce: Callable[[str], None], show: Callable[[str], None]) -> Ended:
    """Attempts of a night, one after the other, until one succeeds or another would be no use.

    Args:
        server: the cluster's.
        job: of the night.
        announce: told each submission id.
        show: shown what jobs print.
    """
    backoff_s = job.job.backoff_s
    for number in range(1, job.job.max_attempts + 1):
        submission_id = server.submit(job)
        announce(submission_id)
        end = server.follow(submission_id, show)
        if is_final(end) or number == job.job.max_attempts:
            break
        announce(
            f"{submission_id} {end.status.lower()} with exit code {end.exit_code}; the next attempt in {backoff_s:g} s"
        )
        time.sleep(backoff_s)
        backoff_s *= 2
    return end


def is_final(end: Ended) -> bool:
    """Is another attempt no use? Who stops a job does not want it again."""
    return end.status != JobStatus.FAILED or end.exit_code in NOT_AGAIN


@contextmanager
def runtime_env(job: Job) -> Iterator[dict[str, Any]]:
    """Ray's runtime environment of a job; the package that is shipped is there while inside."""
    settings = job.job
    environment: dict[str, Any] = {"env_vars": settings.env_vars} if settings.env_vars else {}
    if settings.image:
        environment["image_uri"] = settings.image
    if not settings.working_dir:
        yield environment
        return
    with tempfile.TemporaryDirectory(prefix="ssd-batch-") as folder:
        yield environment | {"working_dir": str(pack(job.folder / settings.working_dir, settings, Path(folder)))}


def pack(working_dir: Path, settings: JobSettings, folder: Path) -> Path:
    """A zip file of the code, in a folder.

    Raises:
        SettingError: there is no code in it, or it is too large.
    """
    if not (working_dir / "jobs/__main__.py").is_file():
        raise SettingError(
            f"working_dir: {str(working_dir)!r} is no working tree of ssd-batch: jobs/__main__.py is missing"
        )
    package = folder / "working_dir.zip"
    create_package(
        str(working_dir), package, include_gitignore=True, excludes=[".git", *settings.excludes], logger=None
    )
    if package.stat().st_size > settings.max_package_mib * MIB:
        with zipfile.ZipFile(package) as content:
            largest = sorted(content.infolist(), key=lambda file: file.compress_size, reverse=True)[:NUM_NAMED]
        names = ", ".join(f"{file.filename} ({file.compress_size / MIB:.1f} MiB)" for file in largest)
        raise SettingError(
            f"max_package_mib: {str(working_dir)!r} is {package.stat().st_size / MIB:.1f} MiB zipped, more than "
            f"{settings.max_package_mib:g}; exclude what is no code, such as {names}"
        )
    return package
