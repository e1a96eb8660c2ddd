"""What a run would take, by what an earlier one of the same table took."""

from dataclasses import dataclass

from pipeline.inference.cost import SECONDS_PER_HOUR
from pipeline.sql import literal
from pipeline.table.delta import ResultTable
from pipeline.table.query import query

LONG_S = 60
"""Runs that streamed for less say little of how fast they were; they are taken where no other is there."""


@dataclass(frozen=True)
class Throughput:
    """How fast a finished run was, from its first results on.

    run_id: which; model_digest: its model; images_per_s: of a detector; start_up_s: to the first results.
    """

    run_id: str
    model_digest: str
    images_per_s: float
    start_up_s: float
    num_detectors: int
    num_nodes: int


@dataclass(frozen=True)
class Estimate:
    """Hours, and money where a price is known, with so many detectors."""

    num_detectors: int
    hours: float
    cost: float | None


def last_throughput(table: ResultTable, model_digest: str) -> Throughput | None:
    """Of the last run that is done, of the same model if there is one; None where the table has no such record."""
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
    num_images: int, seen: Throughput, num_detectors: int, price_per_node_hour: float | None
) -> list[Estimate]:
    """For 1, 2, 4 and so on detectors, and at last for `num_detectors`; each as fast as then, as many a node as then.

    Args:
        num_images: planned.
        seen: how fast they were.
        num_detectors: the most; 0 = as many as then.
        price_per_node_hour: None where it is not known.
    """
    most = num_detectors or seen.num_detectors
    numbers = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [_estimate(num_images, seen, number, price_per_node_hour) for number in [*numbers, most]]


def _estimate(num_images: int, seen: Throughput, num_detectors: int, price_per_node_hour: float | None) -> Estimate:
    stream_s = num_images / (seen.images_per_s * num_detectors)
    hours = (seen.start_up_s + stream_s) / SECONDS_PER_HOUR if num_images else 0.0
    num_nodes = -(-num_detectors * seen.num_nodes // seen.num_detectors)  # rounded up
    cost = None if price_per_node_hour is None else hours * num_nodes * price_per_node_hour
    return Estimate(num_detectors, hours, cost)
