"""The server that forks the processes of `pipeline.stages.local`. It has imported torch, so that each process starts in a moment."""

import signal
import sys
from multiprocessing import forkserver, get_context
from tempfile import gettempdir
from typing import Any

from pipeline.errors import SettingError, reason
from pipeline.settings import ClusterSettings
from pipeline.stages.place import works_here

HAS_SERVER = sys.platform == "linux"
"""The flag of a platform that has the server: Linux. Elsewhere it is not safe to fork after torch was imported.

Without the server, each process imports torch itself.
"""

CONTEXT: Any = get_context("forkserver" if HAS_SERVER else "spawn")
if HAS_SERVER:
    CONTEXT.set_forkserver_preload(["__main__", "pipeline.stages.preload"])


def ignore_stops() -> None:
    """Ignore SIGINT and SIGTERM, which may be sent to all processes of a group: the driver decides which of them end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def start_early(settings: ClusterSettings) -> None:
    """Start the server if it will be needed, without waiting for it. It imports torch while the caller lists and plans."""
    if works_here(settings):
        ensure_running()


def ensure_running() -> None:
    """Start the server, unless it runs.

    Raises:
        SettingError: the server's socket can't be made in the folder for temporary files.
    """
    try:
        if HAS_SERVER:
            forkserver.ensure_running()
    except OSError as error:
        raise SettingError(
            f"TMPDIR {gettempdir()!r} can't be used ({reason(error)}): the path of a socket in it may have 107 bytes; name a shorter one"
        ) from error
