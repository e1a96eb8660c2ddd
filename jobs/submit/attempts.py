"""The attempts of a night, one after the other."""

import time
from collections.abc import Callable

from ray.job_submission import JobStatus

from jobs.submit.server import Ended, JobServer, ended
from jobs.submit.submission import Submission
from pipeline.errors import NOT_AGAIN, HeldError, SettingError


def submit_and_wait(
    server: JobServer, submission: Submission, announce: Callable[[str], None], show: Callable[[str], None]
) -> Ended:
    """Submit attempts of a night, one after the other, until one succeeds or another would be of no use.

    An attempt that runs already is followed, and one that has succeeded is the answer: this may be the second call of someone who lost
    sight of it.

    Args:
        server: the cluster's job server.
        submission: the submission of the night.
        announce: is called with each submission id, and with a line on each failed attempt.
        show: is called with what jobs print.

    Raises:
        SettingError: a training would begin anew in each attempt, and delete what the one before has learned.
    """
    if getattr(submission.command, "restart", False) and submission.settings.max_attempts > 1:
        raise SettingError(
            f"restart: each of max_attempts {submission.settings.max_attempts} would begin anew; give --max-attempts 1, or leave restart out"
        )
    backoff_s = submission.settings.backoff_s
    for number in range(1, submission.settings.max_attempts + 1):
        last, _ = server.last_attempt(submission)
        if last and last.status == JobStatus.SUCCEEDED:
            announce(
                f"{last.submission_id} has succeeded already: nothing is submitted; another job needs another --name"
            )
            return ended(last)
        try:
            submission_id = _running(server, submission) or server.submit(submission)
        except HeldError:  # another has submitted it at the same time
            if not (submission_id := _running(server, submission)):
                raise
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
    """Is another attempt of no use? A job that someone stopped is not wanted again."""
    return end.status != JobStatus.FAILED or end.exit_code in NOT_AGAIN


def _running(server: JobServer, submission: Submission) -> str:
    """Return the submission id of the night's attempt that is pending or running, or ""."""
    last, _ = server.last_attempt(submission)
    return last.submission_id or "" if last and not last.status.is_terminal() else ""
