"""The events of a training, which say how far it is: sent by its first worker, shown by the driver."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, TextIO

from pipeline.logs import can_rewrite, write_line

if TYPE_CHECKING:
    from ray.util.queue import Queue
from pipeline.progress import LINE_INTERVAL_S, REDRAW_INTERVAL_S


@dataclass(frozen=True)
class Started:
    """The start, or the resumption, of a group of workers at a step."""

    step: int
    num_workers: int
    device: str
    is_eager_for_want_of_a_compiler: bool


@dataclass(frozen=True)
class StepDone:
    """The end of a step, with its losses over the whole batch."""

    step: int
    """The number of steps that are done now."""
    localization: float
    classification: float
    learning_rate: float


@dataclass(frozen=True)
class Evaluated:
    """The measurement of a checkpoint on the held-out images."""

    step: int
    map: float
    map50: float


@dataclass(frozen=True)
class StoppedEarly:
    """The end of a training that no longer gets better, before its last step."""

    step: int
    num_measured: int
    """The number of measurements in which it has not got better."""


TrainingEvent = Started | StepDone | Evaluated | StoppedEarly
"""An event that the first worker sends."""


NUM_RECENT = 50
"""The number of steps whose mean loss is compared."""
RISE = 2.0
"""The factor by which the mean loss must rise above its lowest."""


class Speed:
    """Measures images per second since the first step, so that start-up does not count.

    Args:
        batch_size: the number of images per step.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._first: tuple[float, int] | None = None

    def __call__(self, event: TrainingEvent) -> float | None:
        """Return the images per second after a step; None for other events, and until there are two steps."""
        match event:
            case Started():
                self._first = None
            case StepDone():
                return self._since_first(event.step, time.monotonic())
        return None

    def _since_first(self, step: int, now_s: float) -> float | None:
        self._first = self._first or (now_s, step)
        since_s, before = self._first
        return (step - before) * self._batch_size / (now_s - since_s) if step > before and now_s > since_s else None


class Rise:
    """Says once that the loss has risen, which is a sign of a learning rate that is too high."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=NUM_RECENT)
        self._lowest, self._is_said = math.inf, False

    def __call__(self, event: StepDone) -> str:
        """Return what to say after a step, or ""."""
        self._recent.append(event.localization + event.classification)
        if len(self._recent) < NUM_RECENT:
            return ""
        mean = sum(self._recent) / NUM_RECENT
        if not self._is_said and mean > RISE * self._lowest:
            self._is_said, before = True, self._lowest
            return (
                f"step {event.step:,}: the loss has risen to {mean:.2f} from {before:.2f} (means of {NUM_RECENT} steps); a lower learning_rate "
                "or a longer warm-up may help"
            )
        self._lowest = min(self._lowest, mean)
        return ""


class TrainingProgress:
    """Shows step, pass, losses, learning rate, images per second and time left.

    On a terminal this is one line that rewrites itself, elsewhere a line every ten seconds.

    Args:
        num_steps: the number of steps of the whole training.
        batch_size: the number of images per step.
        num_examples: the number of images per pass.
        stream: the stream that gets the lines.
    """

    def __init__(self, num_steps: int, batch_size: int, num_examples: int, stream: TextIO) -> None:
        self._num_steps, self._batch_size, self._num_examples = num_steps, batch_size, num_examples
        self._stream = stream
        self._is_terminal = can_rewrite(stream)
        self._interval_s = REDRAW_INTERVAL_S if self._is_terminal else LINE_INTERVAL_S
        self._shown_s = 0.0
        self._speed = Speed(batch_size)
        self._rise = Rise()

    def show(self, event: TrainingEvent) -> None:
        """Show an event of the first worker."""
        images_per_s = self._speed(event)
        match event:
            case Started():
                self._write(self._beginning(event))
            case Evaluated():
                self._write(f"step {event.step:,}: map50 {event.map50:.4f} on the held-out images")
            case StepDone():
                self._show_step(event, images_per_s, time.monotonic())
                if text := self._rise(event):
                    self._write(text)
            case StoppedEarly():
                self._write(
                    f"the training ends at step {event.step:,}: {event.num_measured} measurements without a better map50"
                )

    def _beginning(self, event: Started) -> str:
        begins = f"resumes after step {event.step:,} of {self._num_steps:,}" if event.step else "begins"
        eager = "; compile: no compiler (g++ or CXX; on a GPU gcc or CC) was found, so it goes without" * (
            event.is_eager_for_want_of_a_compiler
        )
        return f"the training {begins}: {event.num_workers} workers, {event.device}{eager}"

    def _show_step(self, event: StepDone, images_per_s: float | None, now_s: float) -> None:
        is_last = event.step == self._num_steps
        if now_s - self._shown_s < self._interval_s and not is_last:
            return
        self._shown_s = now_s
        line = describe(event, self._num_steps, self._batch_size, self._num_examples, images_per_s)
        self._write(line, stays=is_last)

    def _write(self, line: str, stays: bool = True) -> None:
        if not self._is_terminal:
            write_line(self._stream, line)
            return
        self._stream.write(f"\r\x1b[K{line}" + "\n" * stays)
        self._stream.flush()


def describe(event: StepDone, num_steps: int, batch_size: int, num_examples: int, images_per_s: float | None) -> str:
    """Return the line that shows a step."""
    pass_number = (event.step * batch_size - 1) // num_examples + 1
    speed = "starting"
    if images_per_s:
        left_s = int((num_steps - event.step) * batch_size / images_per_s)
        speed = f"{images_per_s:.1f} images/s · {left_s // 60}:{left_s % 60:02d} left"
    return (
        f"step {event.step:,} of {num_steps:,} · pass {pass_number:,} · localization {event.localization:.3f} · "
        f"classification {event.classification:.3f} · learning rate {event.learning_rate:.2g} · {speed}"
    )


@contextmanager
def listen(listeners: Sequence[Callable[[TrainingEvent], None]]) -> "Iterator[Queue]":
    """Yield a queue for the events of workers, and call each listener with each event, until the end."""
    import ray  # takes a second, and is not needed to show a training only
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # The queue is on this node, so that it survives the loss of another node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def forward() -> None:
        while (event := queue.get()) is not None:
            for listener in listeners:
                listener(event)

    thread = Thread(target=forward, name="training progress", daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        queue.put(None)
        thread.join()
        queue.shutdown()
