"""How a training went: what its first worker told, thinned, as its checkpoints keep it."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.training.events import Begun, Measured, Stepped, Told

MAX_POINTS = 2000
"""More than a screen has pixels; a checkpoint grows by about 100 KB."""


@dataclass
class TrainingHistory:
    """Grows by what is told. Resumed from a checkpoint, it ends as that of a training that was never stopped.

    stride: steps to a point; begun: starts and resumptions whose steps count; stepped: points, each the mean of its
    steps under the number of their last; measured: of the checkpoints that were measured.
    """

    stride: int
    begun: list[Begun] = field(default_factory=list)
    stepped: list[Stepped] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)

    @classmethod
    def of(cls, num_steps: int) -> "TrainingHistory":
        """An empty one, for a training of so many steps."""
        return cls(math.ceil(num_steps / MAX_POINTS))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TrainingHistory":
        """The inverse of `state`."""
        return cls(
            state["stride"],
            [Begun(**told) for told in state["begun"]],
            [Stepped(**told) for told in state["stepped"]],
            [Measured(**told) for told in state["measured"]],
        )

    def state(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts alone, for a file that is read without running code."""
        return asdict(self)

    def add(self, told: Told) -> None:
        """Steps come in order."""
        match told:
            case Begun():
                self.begun.append(told)
            case Measured():
                self.measured.append(told)
            case Stepped():
                self._add_step(told)

    def _add_step(self, told: Stepped) -> None:
        num_before = (told.step - 1) % self.stride
        if num_before == 0:
            self.stepped.append(told)
            return
        last, share = self.stepped[-1], 1 / (num_before + 1)
        self.stepped[-1] = Stepped(
            told.step,
            last.localization + share * (told.localization - last.localization),
            last.classification + share * (told.classification - last.classification),
            last.learning_rate + share * (told.learning_rate - last.learning_rate),
        )
