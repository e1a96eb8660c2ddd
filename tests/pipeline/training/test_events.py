import io

import pytest

from pipeline.training import events
from pipeline.training.events import Evaluated, Rise, Started, StepDone, StoppedEarly, TrainingProgress, describe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last entry is now, in seconds."""
    now_s = [1000.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now_s[-1])
    return now_s


def test_the_line() -> None:
    told = StepDone(1200, 0.5, 1.25, 0.001)
    assert describe(told, 60_000, 32, 16_551, 80.0) == (
        "step 1,200 of 60,000 · pass 3 · localization 0.500 · classification 1.250 · learning rate 0.001 · "
        "80.0 images/s · 392:00 left"
    )
    assert describe(told, 60_000, 32, 16_551, None).endswith("· starting")


def test_a_line_every_ten_seconds_and_at_the_end(clock: list[float]) -> None:
    """Four images a step, a step every four seconds: one image a second since the first step."""
    stream = io.StringIO()
    progress = TrainingProgress(num_steps=6, batch_size=4, num_examples=10, stream=stream)
    progress.show(Started(0, 2, "cpu", False))
    for step in range(1, 7):
        clock.append(clock[-1] + 4)
        progress.show(StepDone(step, 1.0, 2.0, 0.01))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "the training begins: 2 workers, cpu"
    assert [line.partition(" ·")[0] for line in lines[1:]] == ["step 1 of 6", "step 4 of 6", "step 6 of 6"]
    assert lines[2].endswith("1.0 images/s · 0:08 left")


def test_what_else_is_told() -> None:
    stream = io.StringIO()
    progress = TrainingProgress(num_steps=60, batch_size=4, num_examples=10, stream=stream)
    progress.show(Started(40, 1, "cpu", True))
    progress.show(Evaluated(50, 0.5, 0.81234))
    progress.show(StoppedEarly(50, 3))
    assert stream.getvalue().splitlines() == [
        "the training resumes after step 40 of 60: 1 workers, cpu; compile: no compiler (g++ or CXX; on a GPU gcc or CC) was found, "
        "so it goes without",
        "step 50: map50 0.8123 on the held-out images",
        "the training ends at step 50: 3 measurements without a better map50",
    ]


def test_a_terminal_has_one_line_that_rewrites_itself(clock: list[float]) -> None:
    stream = Terminal()
    progress = TrainingProgress(num_steps=2, batch_size=4, num_examples=10, stream=stream)
    for step in (1, 2):
        clock.append(clock[-1] + 4)
        progress.show(StepDone(step, 1.0, 2.0, 0.01))
    assert stream.getvalue().count("\r\x1b[Kstep") == 2
    assert stream.getvalue().count("\n") == 1


def test_a_loss_that_rises_is_told_once() -> None:
    """Fifty steps at 3 on the mean, then higher ones: from 6 on."""
    rise = Rise()
    losses = [4.0, 2.0] * 25 + [20.0] * 60
    said = [
        (step, text) for step, loss in enumerate(losses, 1) if (text := rise(StepDone(step, loss / 2, loss / 2, 0.1)))
    ]
    assert said == [
        (
            59,
            "step 59: the loss has risen to 6.04 from 3.00 (means of 50 steps); a lower learning_rate or a longer warm-up may help",
        )
    ]
