"""What can stop a run.

SsdBatchError            exit 1   something failed while running; what was committed stays
├─ SettingError          exit 2   a wrong setting, input, model or table; nothing was started
├─ ReconciliationError   exit 1   the table does not hold what the run believes it wrote
├─ TargetMissedError     exit 3   all is done, with more failures than allowed, or another shortfall
├─ HeldError             exit 4   another run that lives holds the table; nothing was started
├─ OvertakenError        exit 5   another run has taken the table; what was committed stays
└─ StoppedError          exit 128 + the signal's number, as shells have it: 130 of Ctrl-C, 143 of SIGTERM
"""

import re
import signal

ANSI = re.compile(r"\x1b\[[0-9;]*m")
"""Colours that delta-rs puts into its messages; obstore adds pages of `Debug source`."""


class SsdBatchError(Exception):
    """The root; `exit_code` is what the command line returns."""

    exit_code = 1


class SettingError(SsdBatchError):
    """A setting can't work: the message names it, its value and the fix."""

    exit_code = 2


class ReconciliationError(SsdBatchError):
    """listed = already done + ok + failed does not hold in the table."""


class TargetMissedError(SsdBatchError):
    """All is done, and not as good as it was told to be: the message names the setting that says so."""

    exit_code = 3


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


def reason(error: BaseException) -> str:
    """What another library's error says, in one line of at most 300 characters; the cause's, where it says nothing."""
    text = " ".join(ANSI.sub("", str(error).partition("\n\nDebug source")[0]).split())
    if text not in ("", "None"):
        return text[:300]
    return reason(error.__cause__) if error.__cause__ else type(error).__name__
