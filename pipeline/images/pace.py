"""How many requests a process has under way: fewer while storage says that it is too many."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Places for requests, shared by all threads: half as many after each `slow_down`, slowly more again with each success.

    Requests that wait each for itself are not fewer in all: while half are refused, a detector that needs 100 images a
    second asks 200 times.

    Args:
        num_most: places while all goes well.
        num_fewest: places that are left in any case; who has one waits longer after each refusal.
    """

    def __init__(self, num_most: int, num_fewest: int) -> None:
        self.num_places = float(num_most)
        self._num_most, self._num_fewest = num_most, num_fewest
        self._num_taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for a place, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_taken < int(self.num_places))
            self._num_taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_taken -= 1
                self._changed.notify_all()

    def slow_down(self) -> None:
        """The store has refused a request, as one too many."""
        with self._changed:
            self.num_places = max(self._num_fewest, self.num_places / 2)

    def succeed(self) -> None:
        """The store has answered at once: one place more after as many answers as there are places."""
        with self._changed:
            self.num_places = min(self._num_most, self.num_places + 1 / self.num_places)
