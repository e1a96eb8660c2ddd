"""The errors that can stop a run, and their exit codes.

SsdBatchError            exit 1   Something failed while running; committed rows stay.
├─ SettingError          exit 2   A setting, input, model or table is wrong; nothing was started.
│                        exit 1   The same, because a store or a server does not answer: the setting may be right.
├─ ReconciliationError   exit 1   The table does not hold the rows that the run believes it wrote.
├─ TargetMissedError     exit 3   The run is done, or was stopped, with more failures than allowed; or another shortfall.
├─ HeldError             exit 4   Another live run holds the table; nothing was started.
├─ OvertakenError        exit 5   Another run has taken the table over; committed rows stay.
└─ StoppedError          exit 128 + the signal's number, as in shells: 130 for Ctrl-C, 143 for SIGTERM.
"""

import re
import signal
from typing import Any

from pipeline.redaction import redacted

NOT_AGAIN = (2, 3, 4, 5)
"""The exit codes after which a scheduler should not try again.

Another attempt would end in the same way, or take the table from the run that overtook this one.
"""

NO_ANSWER = re.compile(
    r"could not connect|connect(ion)? (timeout|timed out|refused|reset|was closed|aborted|error)|cannot connect|read timeout|timed out"
    r"|error sending request|dns error|name resolution|nodename nor servname|name or service not known|no address associated"
    r"|slow ?down|service ?unavailable|internal ?server ?error|too many requests|bad gateway|gateway time-?out",
    re.I,
)
"""A pattern of the messages by which libraries report outages: botocore, s3fs, aiohttp, delta-rs, obstore, urllib."""
NOT_ALLOWED = re.compile(
    r"read-only file system|permission denied|access ?denied|\bforbidden\b|operation not permitted", re.I
)
"""A pattern of the messages by which the same libraries report a place that may not be written."""
ANSI = re.compile(r"\x1b\[[0-9;]*m")
"""A pattern of the colours that delta-rs puts into its messages. obstore adds pages of `Debug source`."""


class SsdBatchError(Exception):
    """The base class of our errors. The command line returns their `exit_code`."""

    exit_code = 1


class SettingError(SsdBatchError):
    """A setting that can't work. The message names it, its value and the fix.

    It is also raised if the setting can't be checked, because a store does not answer.
    """

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """Return 1 if the error follows from an outage, which a scheduler should wait out; else 2."""
        return 1 if is_outage(self.__cause__) else 2


class ReconciliationError(SsdBatchError):
    """The table does not satisfy listed = already done + ok + failed."""


class TargetMissedError(SsdBatchError):
    """A target that a command missed. The message names the setting that sets the target.

    Args:
        message: the text of the error.
        summary: the work that was done, to be printed nevertheless.
    """

    exit_code = 3

    def __init__(self, message: str, summary: Any = None) -> None:
        super().__init__(message)
        self.summary = summary


class HeldError(SsdBatchError):
    """The table is held by a live run. The message names that run."""

    exit_code = 4


class OvertakenError(SsdBatchError):
    """The table was taken over by another run. The message names that run."""

    exit_code = 5


class StoppedError(SsdBatchError):
    """A signal has stopped the command.

    Args:
        number: the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; run again for what is left")
        self.exit_code = 128 + number


def ended_by(what: str, error: Exception) -> SsdBatchError:
    """Return the error that ends a command whose store failed. It is a `SettingError` if the store may not be written at all.

    Expired credentials are no wrong setting: another attempt gets new ones.

    Args:
        what: the text that says what failed, with the URL.
        error: the error of the store, or of the library that speaks to it.
    """
    is_refused = isinstance(error, PermissionError) or NOT_ALLOWED.search(str(error))
    kind = SettingError if is_refused and "expired" not in str(error).lower() else SsdBatchError
    return kind(f"{what}: {reason(error)}")


def reason(error: BaseException) -> str:
    """Return the text of another library's error, without secrets, in one line of at most 300 characters.

    If the error has no text, return that of its cause.
    """
    text = " ".join(ANSI.sub("", str(error).partition("\n\nDebug source")[0]).split())
    if text not in ("", "None"):
        return redacted(text)[:300]
    return reason(error.__cause__) if error.__cause__ else type(error).__name__


def is_outage(error: BaseException | None) -> bool:
    """Does an error, or its cause, come from a store or a server that does not answer, or that is overloaded?"""
    while error:
        answer = getattr(error, "response", None)  # botocore's
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) if isinstance(answer, dict) else 0
        status = status or getattr(error, "status", 0)  # aiohttp's
        if isinstance(status, int) and (status >= 500 or status == 429):
            return True
        is_told = not isinstance(error, FileNotFoundError | PermissionError) and NO_ANSWER.search(str(error))
        if isinstance(error, ConnectionError | TimeoutError) or is_told:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False
