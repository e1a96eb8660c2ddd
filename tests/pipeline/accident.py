"""Drawn pictures with an accident among them. Apart, so that the processes it happens in do not import what only the tests need."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.demo.examples import DrawnExamples
from model.example import Example
from tests.chaos.processes import below, kill

NUM_PICTURES = 10


class Accident(Sequence[Example]):
    """Drawn pictures; when one of them is decoded, something happens in that process first."""

    def __init__(self, index: int, happen: Callable[[], None]) -> None:
        self._pictures, self._index, self._happen = DrawnExamples(0, NUM_PICTURES), index, happen

    def __len__(self) -> int:
        return NUM_PICTURES

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if index == self._index:
            self._happen()
        return self._pictures[index]


def kill_all_once(flag: Path) -> None:
    """All processes that work, this one too: they have one parent, which forked them."""
    if not flag.exists():
        flag.touch()
        kill(*below(os.getppid()))


def kill_this_process() -> None:
    kill(os.getpid())
