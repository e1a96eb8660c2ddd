import io
from dataclasses import astuple

import pytest
import torch

from pipeline.training import history
from pipeline.training.events import Evaluated, Started, StepDone
from pipeline.training.history import TrainingHistory

TOLD = [StepDone(step, 1 / step, 2 / step, 0.1 * step) for step in range(1, 8)]


def test_a_point_is_the_mean_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most three points for seven steps: 1 to 3, 4 to 6, and 7 by itself."""
    monkeypatch.setattr(history, "MAX_POINTS", 3)
    kept = TrainingHistory.of(num_steps=7)
    for told in TOLD:
        kept.add(told)
    assert [told.step for told in kept.stepped] == [3, 6, 7]
    first, last = kept.stepped[0], kept.stepped[-1]
    assert astuple(first) == pytest.approx((3, (1 + 1 / 2 + 1 / 3) / 3, (2 + 1 + 2 / 3) / 3, 0.2))
    assert last == TOLD[-1]


@pytest.mark.parametrize("num_done", range(8))
def test_it_goes_on_from_a_checkpoint_to_the_same_end(monkeypatch: pytest.MonkeyPatch, num_done: int) -> None:
    """Stopped after any step, and read back from a file that holds no code."""
    monkeypatch.setattr(history, "MAX_POINTS", 3)
    whole, part = TrainingHistory.of(7), TrainingHistory.of(7)
    for told in TOLD:
        whole.add(told)
    for told in TOLD[:num_done]:
        part.add(told)
    file = io.BytesIO()
    torch.save(part.state(), file)
    file.seek(0)
    resumed = TrainingHistory.from_state(torch.load(file, weights_only=True))
    for told in (Started(num_done, 2, "cpu", False), *TOLD[num_done:], Evaluated(7, 0.5, 0.75)):
        resumed.add(told)
    assert resumed.stepped == whole.stepped
    assert (resumed.begun, resumed.measured) == ([Started(num_done, 2, "cpu", False)], [Evaluated(7, 0.5, 0.75)])


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [([], 1, False), ([0.5], 1, False), ([0.5, 0.5], 1, True), ([0.5, 0.4, 0.6], 1, False), ([0.5, 0.4, 0.5], 2, True),
     ([0.5, 0.4, 0.5], 3, False), ([0.5, 0.1, 0.1, 0.1], None, False)],
)  # fmt: skip
def test_it_is_stuck_after_some_measurements_without_a_better_one(
    scores: list[float], patience: int | None, expected: bool
) -> None:
    kept = TrainingHistory(1, measured=[Evaluated(step, 0.0, score) for step, score in enumerate(scores)])
    assert kept.is_stuck(patience) == expected
