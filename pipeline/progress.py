"""Show the progress of a run.

A terminal shows one line that rewrites itself. Elsewhere, a line is written at the first results and every ten seconds.
"""

import sys
import time
from typing import TextIO

from pipeline.logs import can_rewrite, write_line

LINE_INTERVAL_S = 10.0
REDRAW_INTERVAL_S = 0.2


class Progress:
    """The progress of a run: images done, images per second, failed images, time left.

    Args:
        total: the number of images to do.
        stream: the stream to which lines are written.
    """

    def __init__(self, total: int, stream: TextIO = sys.stderr) -> None:
        self._total, self._stream = total, stream
        self._is_terminal = can_rewrite(stream)
        self._interval_s = REDRAW_INTERVAL_S if self._is_terminal else LINE_INTERVAL_S
        self._started = self._shown = time.monotonic()
        self._first: tuple[float, int] | None = None
        self.done = self.failed = 0

    def update(self, done: int, failed: int) -> None:
        """Count `done` more images, `failed` of which failed. Show the progress at the first ones and whenever it is due."""
        self.done += done
        self.failed += failed
        now = time.monotonic()
        is_first = self._first is None and self.done < self._total
        self._first = self._first or (now, self.done)
        if is_first or now - self._shown >= self._interval_s:
            self._show(now)

    def close(self) -> None:
        """Show the last state."""
        self._show(time.monotonic())
        if self._is_terminal:
            self._stream.write("\n")

    def _show(self, now: float) -> None:
        self._shown = now
        line = describe(self.done, self.failed, self._total, *self._rate(now))
        if not self._is_terminal:
            write_line(self._stream, line)
            return
        self._stream.write(f"\r\x1b[K{line}")
        self._stream.flush()

    def _rate(self, now: float) -> tuple[float, float | None]:
        """Return the images per second since the first results, so that start-up does not count, and the seconds left."""
        if self._first is None:
            return 0.0, None
        since, before = self._first
        if self.done == before:  # all came at once: count from the start
            since, before = self._started, 0
        rate = (self.done - before) / max(now - since, 1e-6)
        return rate, (self._total - self.done) / rate if rate else None


def describe(done: int, failed: int, total: int, rate: float, left_s: float | None) -> str:
    """Return the line that shows the progress."""
    left = "starting" if left_s is None else f"{int(left_s // 60)}:{int(left_s % 60):02d} left"
    return f"{done:,} of {total:,} images · {rate:.1f} images/s · {failed:,} failed · {left}"
