"""Run the sides of a benchmark as whole processes, measure them, and print what they took. Linux only: it reads /proc."""

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.demo.pictures import draw_picture
from tests.chaos.processes import kill, kill_tree

LOOK_INTERVAL_S = 0.2
GRACE_S = 10.0
"""Time for what a command started to end after it, as Ray's servers do."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
FIRST_SEED, NUM_DRAWN = 2_000_000, 200
ADDRESSES = {"local": "local", "ray": "local-ray"}
"""Sides that are runners of `infer`, and their --address."""


@dataclass(frozen=True)
class Took:
    """Holds what a command took.

    seconds: from the shell to its end; cpu_s: at least, of its process tree; peak_bytes: the tree's most memory (PSS), 0 if not read; out: what it printed.
    """

    seconds: float
    cpu_s: float
    peak_bytes: int
    out: str


def measure(
    command: Sequence[object], memory_every_s: float | None = None, say_memory_every_s: float | None = None
) -> Took:
    """Run a command to its good end, and end all that it started.

    Args:
        command: program and arguments.
        memory_every_s: read the tree's memory this often; a reading takes 15 ms of a core for one process, 30 ms for Ray's.
        say_memory_every_s: print it to stderr this often.

    Raises:
        RuntimeError: it failed; the message holds the end of its stderr.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    waited_before_s = _waited_for_cpu_s()
    # Files, not pipes: a pipe ends with the last process that holds it, not with the command.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        begun_s = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=errors)
        watch = Watch(process.pid, memory_every_s, say_memory_every_s)
        try:
            process.wait()
            seconds = time.perf_counter() - begun_s
        finally:
            if process.returncode is None:
                kill_tree(process.pid)
                process.wait()
            watch.stop()
        out.seek(0), errors.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{command} exited with {process.returncode}: {errors.read()[-2000:]}")
        # Both miss some: looks miss a process's last moment, the kernel's sum those that nobody waited for.
        cpu_s = max(watch.cpu_s, _waited_for_cpu_s() - waited_before_s)
        return Took(seconds, cpu_s, watch.peak_bytes, out.read())


def _waited_for_cpu_s() -> float:
    """Sum the CPU seconds of processes that this one started and waited for, and of those that they waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True)
class Born:
    """Names a process by its number and its start, since numbers are used again."""

    pid: int
    start_ticks: int


class Watch:
    """Watches memory and CPU time of a process and of all below it, from a thread."""

    def __init__(self, pid: int, memory_every_s: float | None, say_every_s: float | None) -> None:
        self.peak_bytes = 0
        self._pid, self._memory_every_s, self._say_every_s = pid, memory_every_s, say_every_s
        self._seen_cpu_s: dict[Born, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @property
    def cpu_s(self) -> float:
        return sum(self._seen_cpu_s.values())

    def stop(self) -> None:
        """Stop to watch; wait for the processes that are left, and kill those that stay."""
        self._is_over.set()
        self._thread.join()
        deadline_s = time.monotonic() + GRACE_S
        while (left := self._seen_cpu_s.keys() & _processes().keys()) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        kill(*(born.pid for born in left))

    def _watch(self) -> None:
        begun_s, num_read, num_said = time.monotonic(), 0, 0
        while not self._is_over.wait(LOOK_INTERVAL_S):
            tree = self._tree()
            self._seen_cpu_s |= tree
            elapsed_s = time.monotonic() - begun_s
            if self._memory_every_s is None or elapsed_s < num_read * self._memory_every_s:
                continue
            now_bytes, num_read = sum(_pss_bytes(born.pid) for born in tree), num_read + 1
            self.peak_bytes = max(self.peak_bytes, now_bytes)
            if self._say_every_s and elapsed_s >= num_said * self._say_every_s:
                print(f"  {elapsed_s:.0f} s: {now_bytes / 2**30:.2f} GiB", file=sys.stderr, flush=True)
                num_said += 1

    def _tree(self) -> dict[Born, float]:
        """Find the CPU seconds of each process below; one that was once below stays, whoever adopts it."""
        there = _processes()
        pids = {self._pid} | {born.pid for born in self._seen_cpu_s.keys() & there.keys()}
        while children := {born.pid for born, (parent, _) in there.items() if parent in pids} - pids:
            pids |= children
        return {born: cpu_s for born, (_, cpu_s) in there.items() if born.pid in pids}


def _processes() -> dict[Born, tuple[int, float]]:
    """Find parent and CPU seconds of each process of this machine that is no zombie. Source: proc_pid_stat(5)."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/stat", errors="replace") as file:
            state, parent, *more = file.read().rpartition(") ")[2].split()
            if state != "Z":
                born = Born(int(pid), int(more[17]))
                found[born] = int(parent), (int(more[9]) + int(more[10])) / TICKS_PER_S
    return found


def _pss_bytes(pid: int) -> int:
    """Read a process's memory, in which pages that several share count in parts."""
    with suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def draw(folder: Path, num_images: int) -> Path:
    """Write this many pictures of the demo; after `NUM_DRAWN` they come again."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as drawn:
        for number in range(min(num_images, NUM_DRAWN)):
            draw_picture(FIRST_SEED + number).image.save(Path(drawn, f"{number:07}.jpg"), quality=92)
        return repeat(Path(drawn), folder, num_images)


def repeat(images: Path, folder: Path, num_images: int) -> Path:
    """Write this many pictures from those of a folder; after the last one they come again, as links to the same content."""
    folder.mkdir()
    sources = sorted(images.iterdir())[:num_images]
    copies = [Path(shutil.copy(file, folder / f"{number:07}{file.suffix}")) for number, file in enumerate(sources)]
    for number in range(len(copies), num_images):
        copied = copies[number % len(copies)]
        (folder / f"{number:07}{copied.suffix}").hardlink_to(copied)
    return folder


def pictures(images: Path | None, folder: Path, num_images: int) -> Path:
    """Write this many pictures: those of a folder, or pictures of the demo if none is given."""
    return repeat(images, folder, num_images) if images else draw(folder, num_images)


def infer(images: Path, table: Path, model: Path, side: str) -> list[object]:
    """Make the command that people start, for a side of `ADDRESSES`."""
    command = [
        Path(sys.executable).with_name("ssd-batch"),
        "infer",
        "--input",
        images,
        "--table",
        table,
        "--model",
        model,
    ]
    return command if side == "local" else [*command, "--address", ADDRESSES[side]]


def sides_of(*known: str) -> Callable[[str], list[str]]:
    """Make the type of a flag that takes some of the known sides, with commas between."""

    def parse(text: str) -> list[str]:
        sides = text.split(",")
        if unknown := set(sides) - set(known):
            raise argparse.ArgumentTypeError(f"no side {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return list(dict.fromkeys(sides))

    return parse


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Format the median of values, with the least and the most."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):.{digits}f} ({ordered[0]:.{digits}f} to {ordered[-1]:.{digits}f})"


def surroundings() -> dict[str, Any]:
    """Find what figures stand with: the machine, versions, commit and day."""
    model_names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    versions = {name: version(name) for name in ("torch", "ray", "pyarrow", "openvino") if find_spec(name)}
    return {
        "cpu": model_names[0].partition(": ")[2] if model_names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(), **versions, "commit": commit, "date": str(date.today()),
    }  # fmt: skip


def report(lines: Iterable[str], figures: Mapping[Any, object], as_json: bool) -> None:
    """Print the surroundings and lines for people, and if asked all figures as one JSON object on the last line."""
    told = surroundings()
    print(", ".join(f"{name} {value}" for name, value in told.items()))
    print("\n".join(lines))
    if as_json:
        print(json.dumps({"surroundings": told, **figures}))
