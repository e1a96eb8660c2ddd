"""What can stop a run.

SsdBatchError            exit 1   something failed while running; what was committed stays
├─ SettingError          exit 2   a wrong setting, input, model or table; nothing was started. Exit 1 where it follows from a store or
│                                 a server that does not answer: the setting may be right
├─ ReconciliationError   exit 1   the table does not hold what the run believes it wrote
├─ TargetMissedError     exit 3   done, or stopped, with more failures than allowed; or another shortfall
├─ HeldError             exit 4   another run that lives holds the table; nothing was started
├─ OvertakenError        exit 5   another run has taken the table; what was committed stays
└─ StoppedError          exit 128 + the signal's number, as shells have it: 130 of Ctrl-C, 143 of SIGTERM
"""

import re
import signal
from typing import Any

from pipeline.redaction import redacted

NOT_AGAIN = (2, 3, 4, 5)
"""Exit codes after which a scheduler should not try again: it would end in the same way, or take from who overtook."""

NO_ANSWER = re.compile(
    r"could not connect|connect(ion)? (timeout|timed out|refused|reset|was closed|aborted|error)|cannot connect|read timeout|timed out"
    r"|error sending request|dns error|name resolution|nodename nor servname|name or service not known|no address associated"
    r"|slow ?down|service ?unavailable|internal ?server ?error|too many requests|bad gateway|gateway time-?out",
    re.I,
)
"""Outages as libraries tell them: botocore, s3fs, aiohttp, delta-rs, obstore, urllib."""
NOT_ALLOWED = re.compile(
    r"read-only file system|permission denied|access ?denied|\bforbidden\b|operation not permitted", re.I
)
"""What may not be written, in the words of the same."""
ANSI = re.compile(r"\x1b\[[0-9;]*m")
"""Colours that delta-rs puts into its messages; obstore adds pages of `Debug source`."""


class SsdBatchError(Exception):
    """The root; `exit_code` is what the command line returns."""

    exit_code = 1


class SettingError(SsdBatchError):
    """A setting can't work: the message names it, its value and the fix. Or nobody can tell, because a store does not answer."""

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """1 where it follows from an outage, which a scheduler should wait out; else 2."""
        return 1 if is_outage(self.__cause__) else 2


class ReconciliationError(SsdBatchError):
    """listed = already done + ok + failed does not hold in the table."""


class TargetMissedError(SsdBatchError):
    """A command missed what it was held to: the message names the setting that says so.

    Args:
        message: as of all errors.
        summary: what was done, to be printed all the same.
    """

    exit_code = 3

    def __init__(self, message: str, summary: Any = None) -> None:
        super().__init__(message)
        self.summary = summary


class HeldError(SsdBatchError):
    """The table is held by a run that lives: the message names it."""

    exit_code = 4


class OvertakenError(SsdBatchError):
    """Another run has taken the table over: the message names it."""

    exit_code = 5


class StoppedError(SsdBatchError):
    """A signal has stopped the command.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; run again for what is left")
        self.exit_code = 128 + number


def ended_by(what: str, error: Exception) -> SsdBatchError:
    """Return the error that ends a command whose store failed: a wrong setting, where it may not be written at all.

    Credentials that have expired are none: another attempt gets new ones.

    Args:
        what: happened, with the URL.
        error: of the store, or of the library that speaks to it.
    """
    is_refused = isinstance(error, PermissionError) or NOT_ALLOWED.search(str(error))
    kind = SettingError if is_refused and "expired" not in str(error).lower() else SsdBatchError
    return kind(f"{what}: {reason(error)}")


def reason(error: BaseException) -> str:
    """Return what another library's error says, without secrets, in one line of at most 300 characters; the cause's, where it says nothing."""
    text = " ".join(ANSI.sub("", str(error).partition("\n\nDebug source")[0]).split())
    if text not in ("", "None"):
        return redacted(text)[:300]
    return reason(error.__cause__) if error.__cause__ else type(error).__name__


def is_outage(error: BaseException | None) -> bool:
    """Tell whether an error, or what it follows from, is of a store or a server that does not answer, or has too much to do."""
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
