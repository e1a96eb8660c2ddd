import pytest

from pipeline.errors import TargetMissedError
from pipeline.inference import cost
from pipeline.inference.cost import Cost
from pipeline.table.run_records import RunRecord


@pytest.fixture
def clock(clock_of):
    return clock_of(cost, 1000.0)


def recorded(cost: Cost, num_images: int) -> tuple[int | None, float | None, float | None]:
    record = RunRecord("r1")
    cost.record(record, num_images)
    return record.num_nodes, record.cost, record.cost_per_thousand


def test_nodes_are_paid_for_as_long_as_they_are_there(clock):
    """Two nodes for half an hour, four for a quarter: two node-hours."""
    nodes = iter([2, 4, 3])
    run = Cost(1.5, None, lambda: next(nodes), started_s=1000.0, interval_s=60)
    clock.now += 1800
    run.check()
    clock.now += 900
    assert run.cost == pytest.approx(3.0)
    clock.now += 30
    run.check()  # counts three from here on
    cost = 1.5 * (2 * 1800 + 4 * 930) / 3600
    assert recorded(run, 2000) == (4, pytest.approx(cost), pytest.approx(cost / 2))


def test_nodes_are_not_counted_more_often_than_asked(clock):
    nodes = iter([2])
    run = Cost(1.0, None, lambda: next(nodes), started_s=1000.0, interval_s=60)
    clock.now += 59
    run.check()


def test_a_run_that_costs_too_much_is_stopped(clock):
    run = Cost(2.0, 1.0, lambda: 1, started_s=1000.0, interval_s=60)
    clock.now += 1800
    run.check()
    clock.now += 60
    with pytest.raises(
        TargetMissedError, match=r"max_cost: the run has cost 1\.03 on 1 nodes, more than 1; what was committed"
    ):
        run.check()


def test_without_a_price_there_is_no_cost(clock):
    run = Cost(None, None, lambda: 3, started_s=1000.0, interval_s=60)
    clock.now += 3600
    run.check()
    assert recorded(run, 10) == (3, None, None)
    assert recorded(Cost(2.0, None, lambda: 3, 1000.0, 60), 0)[2] is None
