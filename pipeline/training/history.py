"""How a training went: what its first worker event, thinned, as its checkpoints keep it."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.training.events import Evaluated, Started, StepDone, TrainingEvent

MAX_POINTS = 2000
"""More than a screen has pixels; a checkpoint grows by about 100 KB."""


@dataclass
class TrainingHistory:
    """Grows by what is event. Resumed from a checkpoint, it ends as that of a training that was never stopped.

    stride: steps to a point; begun: starts and resumptions whose steps count; stepped: points, each the mean of its
    steps under the number of their last; measured: of the checkpoints that were measured.
    """

    stride: int
    begun: list[Started] = field(default_factory=list)
    stepped: list[StepDone] = field(default_factory=list)
    measured: list[Evaluated] = field(default_factory=list)

    @classmethod
    def of(cls, num_steps: int) -> "TrainingHistory":
        """An empty one, for a training of so many steps."""
        return cls(math.ceil(num_steps / MAX_POINTS))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TrainingHistory":
        """The inverse of `state`."""
        return cls(
            state["stride"],
            [Started(**event) for event in state["begun"]],
            [StepDone(**event) for event in state["stepped"]],
            [Evaluated(**event) for event in state["measured"]],
        )

    def state(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts alone, for a file that is read without running code."""
        return asdict(self)

    def add(self, event: TrainingEvent) -> None:
        """Steps come in order."""
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
