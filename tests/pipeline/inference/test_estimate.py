import pytest

from pipeline.inference.estimate import Estimate, Throughput, estimates, last_throughput
from pipeline.table.delta import ResultTable
from pipeline.table.run_records import RunRecord, recorded

SEEN = Throughput("r1", "m1", images_per_s=10.0, start_up_s=36.0, num_detectors=8, num_nodes=2)


def end(table: ResultTable, run_id: str, **columns: object) -> None:
    measured = {"stream_images_per_s": 20.0, "stream_s": 100.0, "start_up_s": 5.0, "num_detectors": 2, "num_nodes": 1}
    with recorded(table, RunRecord(run_id=run_id, **({"model_digest": "m1"} | measured | columns))):
        pass


def fail(table: ResultTable, run_id: str) -> None:
    with recorded(
        table, RunRecord(run_id=run_id, model_digest="m1", stream_images_per_s=20.0, stream_s=100.0, num_detectors=2)
    ):
        raise ZeroDivisionError


def last(table: ResultTable, model_digest: str = "m1") -> str | None:
    found = last_throughput(table, model_digest)
    return found.run_id if found else None


def test_the_last_run_that_was_measured_is_taken(tmp_path, new_table):
    assert last_throughput(ResultTable(str(tmp_path / "table")), "m1") is None
    table = new_table(tmp_path / "table")
    assert last(table) is None
    end(table, "short", stream_s=59.0)
    assert last(table) == "short"
    end(table, "first")
    end(table, "shorter", stream_s=1.0)
    assert last(table) == "first"
    end(table, "second", stream_images_per_s=30.0)
    end(table, "at once", stream_images_per_s=None)
    end(table, "nothing planned", stream_images_per_s=None, num_detectors=None)
    with pytest.raises(ZeroDivisionError):
        fail(table, "failed")
    assert last_throughput(table, "m1") == Throughput("second", "m1", 15.0, 5.0, 2, 1)


def test_a_run_of_the_same_model_comes_first(tmp_path, new_table):
    table = new_table(tmp_path / "table")
    end(table, "same", stream_s=1.0)
    end(table, "other", model_digest="m2")
    assert (last(table, "m1"), last(table, "m2"), last(table, "m3")) == ("same", "other", "other")


def test_more_detectors_take_less_time_and_more_nodes():
    """36,000 images at 10 images/s a detector: an hour; and a hundredth of an hour to start. Four detectors a node."""
    assert estimates(36_000, SEEN, 6, 2.0) == [
        Estimate(1, pytest.approx(1.01), pytest.approx(2.02)),
        Estimate(2, pytest.approx(0.51), pytest.approx(1.02)),
        Estimate(4, pytest.approx(0.26), pytest.approx(0.52)),
        Estimate(6, pytest.approx(0.01 + 1 / 6), pytest.approx(2 * 2 * (0.01 + 1 / 6))),
    ]


def test_as_many_detectors_as_then_unless_told():
    assert [estimate.num_detectors for estimate in estimates(1, SEEN, 0, None)] == [1, 2, 4, 8]
    assert [estimate.num_detectors for estimate in estimates(1, SEEN, 1, None)] == [1]


def test_nothing_planned_takes_nothing_and_without_a_price_nobody_knows():
    assert estimates(0, SEEN, 1, 2.0) == [Estimate(1, 0.0, 0.0)]
    assert estimates(36_000, SEEN, 1, None) == [Estimate(1, pytest.approx(1.01), None)]
