"""The history of a training: the events of its first worker, thinned out, as its checkpoints keep them."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.training.events import Evaluated, Started, StepDone, TrainingEvent

MAX_POINTS = 2000
"""The maximum number of points of a history: more than a screen has pixels. A checkpoint grows by about 100 KB."""


@dataclass
class TrainingHistory:
    """The history of a training, which grows by its events.

    A history that is resumed from a checkpoint ends like the history of a training that was never stopped.
    """

    stride: int
    """The number of steps per point."""
    begun: list[Started] = field(default_factory=list)
    """The starts and resumptions whose steps count."""
    stepped: list[StepDone] = field(default_factory=list)
    """The points. Each point is the mean of its steps, under the number of the last of them."""
    measured: list[Evaluated] = field(default_factory=list)
    """The measurements of the checkpoints that were measured."""

    @classmethod
    def of(cls, num_steps: int) -> "TrainingHistory":
        """Make an empty history, for a training of this many steps."""
        return cls(math.ceil(num_steps / MAX_POINTS))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TrainingHistory":
        """Make a history from what `state` returned."""
        return cls(
            state["stride"],
            [Started(**event) for event in state["begun"]],
            [StepDone(**event) for event in state["stepped"]],
            [Evaluated(**event) for event in state["measured"]],
        )

    def state(self) -> dict[str, Any]:
        """Return the history as numbers, strings, lists and dicts only, for a file that is read without running code."""
        return asdict(self)

    def is_stuck(self, patience: int | None) -> bool:
        """Are the last `patience` measurements all no better than one before them?"""
        scores = [event.map50 for event in self.measured]
        return patience is not None and len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])

    def add(self, event: TrainingEvent) -> None:
        """Add an event; steps come in order."""
        match event:
            case Started():
                self.begun.append(event)
            case Evaluated():
                self.measured.append(event)
            case StepDone():
                self._add_step(event)

    def _add_step(self, event: StepDone) -> None:
        num_before = (event.step - 1) % self.stride
        if num_before == 0:
            self.stepped.append(event)
            return
        last, share = self.stepped[-1], 1 / (num_before + 1)
        self.stepped[-1] = StepDone(
            event.step,
            last.localization + share * (event.localization - last.localization),
            last.classification + share * (event.classification - last.classification),
            last.learning_rate + share * (event.learning_rate - last.learning_rate),
        )
