"""One table, one schedule of accidents: the real command, struck and run again until it ends well."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.chaos.ledger import Ledger
from tests.chaos.places import Place
from tests.chaos.processes import kill_tree

NUM_STRIKES = 4
COMMIT_INTERVAL_S = 1.0
MAX_RUNS = 6
"""Of the command after the last accident, until it ends with 0; one is usual."""
RUN_TIMEOUT_S = 300.0

Fault = Callable[["Campaign"], None]


def say(line: str) -> None:
    """What happens now, for a person who watches."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Strike:
    """An accident, and when: so many seconds after the command was started, or after it has committed rows."""

    fault: Fault
    since: Literal["start", "commit"]
    after_s: float


def schedule(rng: random.Random, faults: tuple[Fault, ...]) -> list[Strike]:
    """The accidents of a campaign; the same ones for the same seed."""
    strikes = []
    for fault in rng.sample(faults, min(NUM_STRIKES, len(faults))):
        since: Any = rng.choices(["start", "commit"], [1, 3])[0]
        strikes.append(Strike(fault, since, rng.uniform(0, 12 if since == "start" else 3)))
    return strikes


class Run:
    """The command as a process, in a session of its own."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        self._out = log.with_suffix(".json")
        with open(log, "wb") as err, open(self._out, "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, start_new_session=True)
        self.pid = self.process.pid
        self.started = time.monotonic()

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(RUN_TIMEOUT_S)

    def signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def summary(self) -> dict[str, Any]:
        """The JSON object, which is all that may be on standard output."""
        found: dict[str, Any] = json.loads(self._out.read_text())
        return found


class Campaign:
    """Runs of one command against one table.

    Args:
        place: where images and table are.
        rng: draws victims.
        report: counts what happened.
        logs: folder for what the runs print.
    """

    def __init__(self, place: Place, rng: random.Random, report: Counter[str], logs: Path) -> None:
        self.place, self.rng, self.report = place, rng, report
        self._table = f"{place.tables}/table"
        self._logs = logs
        self.ledger = Ledger(self._table, place.num_images)
        self._runs: list[Run] = []
        self.run = self.start()

    def __enter__(self) -> "Campaign":
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._runs:
            if run.lives:
                kill_tree(run.pid)
                run.wait()

    def start(self, *flags: str) -> Run:
        """The command, once more."""
        command = [
            sys.executable, "-m", "jobs", "infer", "--input", self.place.images, "--table", self._table,
            "--model", self.place.model, "--commit-interval-s", str(COMMIT_INTERVAL_S), "--json",
            *self.place.flags, *flags,
        ]  # fmt: skip
        self.report["runs"] += 1
        log = self._logs / f"run-{len(self._runs)}.log"
        self._runs.append(Run(command, os.environ | self.place.environment, log))
        return self._runs[-1]

    def play(self, strikes: list[Strike], deadline: float) -> None:
        """Let accidents happen until the deadline or their end, then run to the end, and hold the table against it."""
        for strike in strikes:
            if time.monotonic() > deadline:
                break
            self._run_again_if_it_ended()
            self._wait_for(strike)
            name = strike.fault.__name__
            say(f"  {name} {strike.after_s:.1f} s after {strike.since}")
            self.report[name] += 1
            strike.fault(self)
            self.ledger.note()
        self.place.heal()
        self._finish()

    def expect(self, run: Run, *codes: int) -> int:
        """A run's exit code, which must be one of these.

        Raises:
            AssertionError: it is not; the message has its last lines.
        """
        code = run.wait()
        if code > 0:
            say(f"  exit code {code}")
        assert code in codes, f"exit code {code}, expected {codes}; {run.log}:\n{run.log.read_text()[-3000:]}"
        return code

    def holds(self, run: Run) -> bool:
        """Was it this run that committed last?"""
        return self.ledger.holder().get("pid") == run.pid

    def _run_again_if_it_ended(self) -> None:
        if not self.run.lives:
            self.expect(self.run, 0, 1, -signal.SIGKILL)
            self.run = self.start()

    def _wait_for(self, strike: Strike) -> None:
        """The strike's moment, or the end of the run.

        Raises:
            AssertionError: the run goes on and commits nothing.
        """
        if strike.since == "commit":
            before, deadline = len(self.ledger.rows()), time.monotonic() + RUN_TIMEOUT_S
            while self.run.lives and len(self.ledger.rows()) == before:
                assert time.monotonic() < deadline, f"nothing is committed; {self.run.log.read_text()[-3000:]}"
                time.sleep(0.3)
        begun = self.run.started if strike.since == "start" else time.monotonic()
        while self.run.lives and time.monotonic() < begun + strike.after_s:
            time.sleep(0.1)

    def _finish(self) -> None:
        """Run the command until it ends with 0, once at least with nothing striking it."""
        if self.run.lives:
            self.expect(self.run, 0, 1)
        for _ in range(MAX_RUNS):
            done_before = self.ledger.note()
            self.run = self.start()
            if self.expect(self.run, 0, 1) == 0:
                break
        summary, found = self.run.summary(), self.ledger.judge()
        self.report.update(found)
        self.report.update(f"exit {run.wait()}" for run in self._runs)
        self.report["images"] += self.place.num_images
        self.report["credentials_given"] += self.place.keys.num_given if self.place.keys else 0
        assert summary["listed"] == self.place.num_images
        assert summary["listed"] == summary["already_done"] + summary["ok"] + summary["failed"]
        assert summary["already_done"] == done_before, "what stood there is not planned again"
        wrong = +found - Counter(failed=found["failed"])
        assert not wrong, f"{self._table}: {dict(wrong)}"
