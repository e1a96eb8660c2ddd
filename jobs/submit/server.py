"""Jobs on a cluster: submitted, followed, stopped, through Ray's job server."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from jobs.submit.environment import runtime_env
from jobs.submit.submission import Submission
from pipeline.errors import NOT_AGAIN, HeldError, SettingError, SsdBatchError, reason

OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that Ray's client goes by, whatever address it is given."""
NOT_FOUND = 127
"""A shell's exit code where there is no such command."""
POLL_S = 1.0
SILENCE_S = 120.0
"""A job server that does not answer for so long is given up; its head node may be starting again."""
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Ended:
    """The end of an attempt.

    exit_code: of the command, 0 to 5; 1 where it has none, such as a job that was stopped.
    """

    submission_id: str
    status: str
    exit_code: int


class JobServer:
    """Ray's, by its address; what goes wrong with it is told in one line.

    Raises:
        SettingError: nothing answers there, or it does not let us in.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        with self._explained(), _without(OVERRULING):
            self._client = JobSubmissionClient(self._address)

    def submit(self, submission: Submission) -> str:
        """Begin the next attempt of a night: its submission id.

        Raises:
            HeldError: an earlier attempt is pending, running, or succeeded.
            SettingError: the package is too large.
        """
        attempt = 1
        while details := self.find(submission.submission_id(attempt)):
            if details.status not in (JobStatus.FAILED, JobStatus.STOPPED):
                raise HeldError(
                    f"{details.submission_id} is {details.status.lower()}: the night of {submission.day} needs no other attempt"
                )
            attempt += 1
        return self._begin(submission, submission.submission_id(attempt))

    def _begin(self, submission: Submission, submission_id: str) -> str:
        with runtime_env(submission) as environment, self._explained():
            try:
                return self._client.submit_job(
                    entrypoint=submission.entrypoint,
                    submission_id=submission_id,
                    runtime_env=environment,
                    entrypoint_num_cpus=submission.settings.driver_cpus or None,
                    metadata={
                        "ssd_batch_job": submission.name,
                        "ssd_batch_date": str(submission.day),
                        "ssd_batch_kind": submission.kind,
                    },
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
        """Return all jobs that were submitted, by anyone, the last first."""
        with self._explained():
            found: list[JobDetails] = self._client.list_jobs()
        submitted = [some for some in found if some.submission_id]
        return sorted(submitted, key=lambda some: some.start_time or 0, reverse=True)

    def logs(self, submission_id: str) -> str:
        """Return all that a job has printed so far."""
        self.details(submission_id)
        with self._explained():
            text: str = self._client.get_job_logs(submission_id)
        return text

    def follow(self, submission_id: str, show: Callable[[str], None]) -> Ended:
        """Show what a job prints until it ends, through outages of the server.

        Raises:
            SsdBatchError: the server stays away, or has forgotten the job.
            SettingError: the cluster can't start any job of ours.
        """
        log = Log(show)
        while not (details := self._patiently(submission_id)).status.is_terminal():
            self._tail(submission_id, log)
            time.sleep(POLL_S)
        log.show_from(0, self.logs(submission_id))
        if details.driver_exit_code == NOT_FOUND:
            raise SettingError(
                f"{submission_id}: the head node has no python on its PATH; start Ray there with the PATH of the environment that has it"
            )
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


@contextmanager
def _without(names: Iterable[str]) -> Iterator[None]:
    """Without some variables of the environment."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


class Log:
    """Keeps count of what was shown of a job's log, which begins anew each time it is followed."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._num_shown = show, 0

    def show_from(self, start: int, text: str) -> None:
        """Show what is new of a part of the log that begins at a character."""
        if new := text[max(0, self._num_shown - start) :]:
            self._show(new)
            self._num_shown = start + len(text)


def ended(details: JobDetails) -> Ended:
    """Return how a job that has ended did."""
    succeeded = details.status == JobStatus.SUCCEEDED
    return Ended(details.submission_id or "", str(details.status), 0 if succeeded else details.driver_exit_code or 1)


def submit_and_wait(
    server: JobServer, submission: Submission, announce: Callable[[str], None], show: Callable[[str], None]
) -> Ended:
    """Attempts of a night, one after the other, until one succeeds or another would be no use.

    Args:
        server: the cluster's.
        submission: of the night.
        announce: told each submission id.
        show: shown what jobs print.
    """
    backoff_s = submission.settings.backoff_s
    for number in range(1, submission.settings.max_attempts + 1):
        submission_id = server.submit(submission)
        announce(submission_id)
        end = server.follow(submission_id, show)
        if is_final(end) or number == submission.settings.max_attempts:
            break
        announce(
            f"{submission_id} {end.status.lower()} with exit code {end.exit_code}; the next attempt in {backoff_s:g} s"
        )
        time.sleep(backoff_s)
        backoff_s *= 2
    return end


def is_final(end: Ended) -> bool:
    """Tell whether another attempt is of no use. Who stops a job does not want it again."""
    return end.status != JobStatus.FAILED or end.exit_code in NOT_AGAIN
