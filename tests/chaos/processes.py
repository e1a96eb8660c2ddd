"""Processes of this machine, as `ps` shows them."""

import os
import signal
import subprocess
import time
from contextlib import suppress

RAY_WORKER, SERVER = "ray::MapWorker(MapBatches(WorkerActor))", "multiprocessing.forkserver"
"""How the processes that work on images are named: Ray's, and the local runner's, after the server that forks them."""


def below(pid: int) -> dict[int, str]:
    """All processes that a process has started, and those that they have: their numbers and whole command lines."""
    listed = subprocess.run(["ps", "-ewwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    found: dict[int, str] = {}
    parents = {str(pid)}
    while parents:
        children = {row[0]: row[2] for row in rows if row[1] in parents and len(row) == 3}
        found |= {int(child): name for child, name in children.items()}
        parents = set(children)
    return found


def workers(pid: int) -> dict[int, str]:
    """The processes below that work on images, whoever runs them; the server that forks them is none."""
    found = below(pid)
    servers = {pid for pid, name in found.items() if SERVER in name}
    forked = {child for server in servers for child in below(server)}
    return {pid: name for pid, name in found.items() if name.startswith(RAY_WORKER) or pid in forked}


def server(pid: int) -> dict[int, str]:
    """The server below that forks the local runner's processes."""
    return {pid: name for pid, name in below(pid).items() if SERVER in name and below(pid)}


def kill(*pids: int) -> None:
    """SIGKILL, to those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """A process and all below it; it is stopped first, so that it starts no more."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    kill(*below(pid), pid)


def lives(pid: int) -> bool:
    """Is it there, and no zombie?"""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state not in ("", "Z")


def wait_until_gone(pids: dict[int, str], seconds: float) -> dict[int, str]:
    """Those that are still there after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := {pid: name for pid, name in pids.items() if lives(pid)}) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left
