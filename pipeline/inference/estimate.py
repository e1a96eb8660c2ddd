"""The estimate of what a run would take, from what an earlier run of the same table took."""

from dataclasses import dataclass

from pipeline.inference.cost import SECONDS_PER_HOUR
from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import query

LONG_S = 60
"""The seconds of streaming from which a run's throughput is reliable. A shorter run is used where there is no longer one."""


@dataclass(frozen=True)
class Throughput:
    """The throughput of a finished run, from its first results on."""

    run_id: str
    """The id of the run."""
    model_digest: str
    """The digest of the run's model."""
    images_per_s: float
    """The images per second of one detector."""
    start_up_s: float
    """The seconds from the start of the run to its first results."""
    num_detectors: int
    num_nodes: int


@dataclass(frozen=True)
class Estimate:
    """The hours and the cost of a run with a given number of detectors."""

    num_detectors: int
    hours: float
    cost: float | None
    """The cost; None where no price is known."""


def last_throughput(table: ResultTable, model_digest: str) -> Throughput | None:
    """Return the throughput of the last run that is done; None where the table has no such record.

    A run of the same model is preferred, and among these a run that streamed for at least `LONG_S`.
    """
    if not table.exists:
        return None
    sql = f"""
        SELECT run_id, model_digest, stream_images_per_s / num_detectors, start_up_s, num_detectors, num_nodes FROM runs
        WHERE outcome = 'done' AND stream_images_per_s > 0
        ORDER BY model_digest = {literal(model_digest)} DESC, stream_s >= {LONG_S} DESC, ended_at DESC LIMIT 1
    """
    with query(table, sql) as relation:
        rows = relation.fetchall()
    return Throughput(*rows[0]) if rows else None


def estimates(
    num_images: int, last_run: Throughput, num_detectors: int, price_per_node_hour: float | None
) -> list[Estimate]:
    """Return an estimate for 1, 2, 4 and so on detectors, and a last one for `num_detectors`.

    Detectors are assumed to be as fast as in the measured run, with as many of them per node.

    Args:
        num_images: the number of planned images.
        last_run: the throughput of the measured run.
        num_detectors: the largest number of detectors; 0 means as many as in the measured run.
        price_per_node_hour: the price; None where it is not known.
    """
    max_detectors = num_detectors or last_run.num_detectors
    numbers = [2**power for power in range(max_detectors.bit_length()) if 2**power < max_detectors]
    return [_estimate(num_images, last_run, number, price_per_node_hour) for number in [*numbers, max_detectors]]


def _estimate(num_images: int, last_run: Throughput, num_detectors: int, price_per_node_hour: float | None) -> Estimate:
    stream_s = num_images / (last_run.images_per_s * num_detectors)
    hours = (last_run.start_up_s + stream_s) / SECONDS_PER_HOUR if num_images else 0.0
    num_nodes = -(-num_detectors * last_run.num_nodes // last_run.num_detectors)  # rounded up
    cost = None if price_per_node_hour is None else hours * num_nodes * price_per_node_hour
    return Estimate(num_detectors, hours, cost)
