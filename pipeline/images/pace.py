"""The number of requests that a process has under way. It falls while storage says that they are too many."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """The places for requests, shared by all threads. Each `slow_down` halves their number, and successes slowly raise it again.

    If each request only waited by itself, the requests would not be fewer in all. While half of them are refused, a detector that needs
    100 images per second makes 200 requests per second.

    Args:
        num_most: the number of places while no request is refused.
        num_fewest: the number of places that always remain. A request with such a place waits longer after each refusal.
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
        """Halve the number of places: the store has refused a request as one too many."""
        with self._changed:
            self.num_places = max(self._num_fewest, self.num_places / 2)

    def succeed(self) -> None:
        """Raise the number of places: the store has answered at once. As many answers as there are places add one place."""
        with self._changed:
            self.num_places = min(self._num_most, self.num_places + 1 / self.num_places)
