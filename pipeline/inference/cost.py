"""The cost of a run: the nodes of its cluster, for the time that it runs."""

import time
from collections.abc import Callable

from pipeline.errors import TargetMissedError
from pipeline.table.run_records import RunRecord

SECONDS_PER_HOUR = 3600


class Cost:
    """The node-hours of a run so far, and their price.

    Nodes are counted from time to time, because clusters grow and shrink. The time before the first count is charged by that count.

    Args:
        price_per_node_hour: the price, in any unit; None where it is not known.
        max_cost: the limit, in the same unit; None means no limit.
        count_nodes: returns the number of nodes that the cluster has at the time.
        started_s: the time at which the run began, by `time.monotonic`.
        interval_s: the seconds between counts.
    """

    def __init__(
        self,
        price_per_node_hour: float | None,
        max_cost: float | None,
        count_nodes: Callable[[], int],
        started_s: float,
        interval_s: float,
    ) -> None:
        self._price, self._max_cost = price_per_node_hour, max_cost
        self._count_nodes, self._interval_s = count_nodes, interval_s
        self._num_nodes = self._most_nodes = count_nodes()
        self._counted_s, self._node_s = started_s, 0.0

    @property
    def cost(self) -> float | None:
        """The cost up to now; None where no price is known."""
        if self._price is None:
            return None
        node_s = self._node_s + self._num_nodes * (time.monotonic() - self._counted_s)
        return node_s / SECONDS_PER_HOUR * self._price

    def check(self) -> None:
        """Count the nodes, if `interval_s` has passed since the last count.

        Raises:
            TargetMissedError: the run has cost more than `max_cost`. A scheduler that tried again would spend as much again.
        """
        now = time.monotonic()
        if now - self._counted_s < self._interval_s:
            return
        self._node_s += self._num_nodes * (now - self._counted_s)
        self._counted_s, self._num_nodes = now, self._count_nodes()
        self._most_nodes = max(self._most_nodes, self._num_nodes)
        if self._max_cost is not None and self.cost is not None and self.cost > self._max_cost:
            raise TargetMissedError(
                f"max_cost: the run has cost {self.cost:.2f} on {self._num_nodes} nodes, more than {self._max_cost:g}; what was "
                "committed stays; run again with a higher max_cost for what is left"
            )

    def record(self, record: RunRecord, num_images: int) -> None:
        """Put the cost into a run's record.

        Args:
            record: the record of the run.
            num_images: the number of images that the run detected or that failed in it.
        """
        cost = record.cost = self.cost
        record.num_nodes = self._most_nodes
        record.cost_per_thousand = None if cost is None or not num_images else cost / num_images * 1000
