"""Submits, follows and stops jobs on a cluster, through Ray's job server."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from jobs.submit.environment import runtime_env
from jobs.submit.submission import Submission
from pipeline.errors import HeldError, SettingError, SsdBatchError, reason

OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""The environment variables that Ray's client obeys, whatever address it is given."""
NOT_FOUND = 127
"""The exit code of a shell for a command that does not exist."""
PASSING = re.compile(r"status code (5\d\d|429)")
"""A pattern of Ray's error for an answer that may be another one later."""
POLL_S = 1.0
SILENCE_S = 120.0
"""The seconds without an answer after which a job server is given up. Its head node may be restarting until then."""
ANSWER_TIMEOUT_S = 60.0
"""The seconds after which a request without an answer has failed."""
QUIET_S = 30.0
"""The seconds without news in a log that is followed, after which the server is asked how the job is. The machine at the other end may be
gone without a word."""
MAX_QUIET = 10
"""The number of times that it is asked until the connection counts as lost: what is between may have dropped it."""
STOP_TIMEOUT_S = 300.0
"""The seconds in which a job must have ended. A commit is repeated for up to 180 s, and a head may wait 150 s for it."""


@dataclass(frozen=True)
class Ended:
    """The end of an attempt."""

    submission_id: str
    status: str
    exit_code: int
    """The command's exit code, 0 to 5; 1 where it has none, such as a job that was stopped."""


class Client(JobSubmissionClient):
    """Ray's client, which waits for no answer without end."""

    def _do_request(self, *arguments: Any, **options: Any) -> requests.Response:
        return super()._do_request(*arguments, **{"timeout": ANSWER_TIMEOUT_S} | options)

    async def tail(
        self, submission_id: str, show_from: Callable[[int, str], None], is_over: Callable[[], bool]
    ) -> None:
        """Show a job's log, as long as the connection lasts, and is of use.

        Args:
            submission_id: the job's.
            show_from: called with the number of characters before a part of the log, and the part.
            is_over: called where nothing has come for `QUIET_S`; if it returns True, or raises, this is the end.
        """
        url, num_seen = f"{self._address}/api/jobs/{submission_id}/logs/tail", 0
        patience = aiohttp.ClientWSTimeout(ws_close=1.0)
        options: dict[str, Any] = {"timeout": patience, "ssl": self._ssl_context or True}
        async with (
            aiohttp.ClientSession(cookies=self._cookies, headers=self._headers) as session,
            session.ws_connect(url, **options) as socket,
        ):
            while True:
                coming = asyncio.ensure_future(socket.receive())
                for _ in range(MAX_QUIET):
                    if (await asyncio.wait([coming], timeout=QUIET_S))[0]:
                        break
                    if is_over():
                        return
                else:
                    return
                if (message := coming.result()).type != aiohttp.WSMsgType.TEXT:
                    return
                show_from(num_seen, message.data)
                num_seen += len(message.data)


class JobServer:
    """Ray's job server at an address. Its errors are reported in one line.

    Raises:
        SettingError: nothing answers at the address, or the server refuses access, or what it is asked.
        SsdBatchError: the server failed.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        with self._explained(), _without(OVERRULING):
            self._client = Client(self._address)

    def submit(self, submission: Submission) -> str:
        """Begin the next attempt of a night, and return its submission id.

        Raises:
            HeldError: an earlier attempt is pending or running, or has succeeded.
            SettingError: the package is too large.
        """
        last, number = self.last_attempt(submission)
        if last and last.status not in (JobStatus.FAILED, JobStatus.STOPPED):
            raise HeldError(
                f"{last.submission_id} is {last.status.lower()}: the night of {submission.day} needs no other attempt; "
                "another job needs another --name"
            )
        return self._begin(submission, submission.submission_id(number + 1))

    def last_attempt(self, submission: Submission) -> tuple[JobDetails | None, int]:
        """Return the last attempt of a night, None if there is none, and its number, from 1."""
        jobs, number, last = {job.submission_id: job for job in self.jobs()}, 0, None
        while details := jobs.get(submission.submission_id(number + 1)):
            number, last = number + 1, details
        return last, number

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
        """Return a job; None where the server knows none with this id."""
        return next((job for job in self.jobs() if job.submission_id == submission_id), None)

    def details(self, submission_id: str) -> JobDetails:
        """Return a job.

        Raises:
            SettingError: the server knows none with this id.
        """
        if details := self.find(submission_id):
            return details
        raise SettingError(f"ID: no job {submission_id!r} at {self._address}; ssd-batch status lists them")

    def jobs(self) -> list[JobDetails]:
        """Return all jobs that were submitted, by anyone, the newest first."""
        with self._explained():
            found: list[JobDetails] = self._client.list_jobs()
        submitted = [job for job in found if job.submission_id]
        return sorted(submitted, key=lambda job: job.start_time or 0, reverse=True)

    def logs(self, submission_id: str) -> str:
        """Return all that a job has printed so far."""
        self.details(submission_id)
        with self._explained():
            text: str = self._client.get_job_logs(submission_id)
        return text

    def follow(self, submission_id: str, show: Callable[[str], None]) -> Ended:
        """Show what a job prints until it ends, also through outages of the server.

        Raises:
            SsdBatchError: the server does not answer for `SILENCE_S`, or has forgotten the job.
            SettingError: the cluster can't start any job of ours: the head node has no python on its PATH.
        """
        log = Log(show)
        while not (details := self._patiently(submission_id)).status.is_terminal():
            with suppress(OSError, aiohttp.ClientError, SsdBatchError):
                asyncio.run(
                    self._client.tail(
                        submission_id, log.show_from, lambda: self.details(submission_id).status.is_terminal()
                    )
                )
            time.sleep(POLL_S)
        try:
            log.show_from(0, self.logs(submission_id))
        except SsdBatchError as error:  # The node that has it is gone, say.
            show(f"{submission_id}: the rest of its log can't be read: {error}\n")
        if details.driver_exit_code == NOT_FOUND:
            raise SettingError(
                f"{submission_id}: the head node has no python on its PATH; start Ray there with the PATH of the environment that has it"
            )
        return ended(details)

    def stop(self, submission_id: str) -> Ended:
        """Stop a job, and wait until it has ended. It first commits the images that are finished."""
        self.details(submission_id)
        with self._explained():
            self._client.stop_job(submission_id)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not (details := self.details(submission_id)).status.is_terminal():
            if time.monotonic() > deadline:
                raise SsdBatchError(f"{submission_id} is still {details.status.lower()} after {STOP_TIMEOUT_S:g} s")
            time.sleep(POLL_S)
        return ended(details)

    def _patiently(self, submission_id: str) -> JobDetails:
        """Return a job; ask again while the server does not answer."""
        deadline = time.monotonic() + SILENCE_S
        while True:
            try:
                return self.details(submission_id)
            except SsdBatchError as error:
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
        except RuntimeError as error:  # Ray's for an answer that is none, with the text of the server.
            kind = SsdBatchError if PASSING.search(str(error)) else SettingError
            raise kind(f"address {self._address!r}: the job server can't do it ({reason(error)})") from error
        except (ConnectionError, requests.RequestException) as error:
            raise SettingError(
                f"address {self._address!r}: no job server answers there ({reason(error)}); it is the head node's dashboard, port 8265"
            ) from error


@contextmanager
def _without(names: Iterable[str]) -> Iterator[None]:
    """Remove some variables from the environment, within the context."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


class Log:
    """The log of a job, with the number of characters already shown. It begins anew each time it is followed."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._num_shown = show, 0

    def show_from(self, start: int, text: str) -> None:
        """Show the new characters in a part of the log that begins at the character `start`."""
        if new := text[max(0, self._num_shown - start) :]:
            self._show(new)
            self._num_shown = start + len(text)


def ended(details: JobDetails) -> Ended:
    """Return the end of a job that has ended."""
    succeeded = details.status == JobStatus.SUCCEEDED
    return Ended(details.submission_id or "", str(details.status), 0 if succeeded else details.driver_exit_code or 1)
