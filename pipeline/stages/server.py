"""The server that forks the processes of `pipeline.stages.local`; it has imported torch, so that each starts in a moment."""

import signal
import sys
from multiprocessing import forkserver, get_context
from typing import Any

from pipeline.settings import ClusterSettings
from pipeline.stages.place import works_here

HAS_SERVER = sys.platform == "linux"
"""Elsewhere to fork after torch was imported is not safe: each process imports it."""

CONTEXT: Any = get_context("forkserver" if HAS_SERVER else "spawn")
if HAS_SERVER:
    CONTEXT.set_forkserver_preload(["__main__", "pipeline.stages.preload"])


def ignore_stops() -> None:
    """Leave it to the driver to decide what ends, where a signal is sent to all of a group."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def start_early(settings: ClusterSettings) -> None:
    """Start the server where it will be needed, without waiting for it: it imports while the caller lists and plans."""
    if HAS_SERVER and works_here(settings):
        forkserver.ensure_running()
