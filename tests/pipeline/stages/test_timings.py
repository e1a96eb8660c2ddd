from dataclasses import asdict

import pyarrow as pa
import pytest

from pipeline.stages import timings
from pipeline.stages.timings import METERS, Meters
from pipeline.table.run_records import RunRecord

NAMES = (".fetch_s", ".decode_s", ".bytes_read", ".num_retries", ".detect_s", ".detector")


def rows(*images: tuple[float | None, float | None, int | None, int | None, float | None, str | None]) -> pa.Table:
    """Of images, the columns of `NAMES` with one of the table."""
    values = [dict(zip(NAMES, image, strict=True)) for image in images]
    return pa.Table.from_pylist(values, schema=METERS).add_column(0, "uri", [[f"{n}" for n in range(len(images))]])


def recorded(meters: Meters) -> dict[str, object]:
    """What a record has of them, nulls aside."""
    record, empty = RunRecord("r1"), asdict(RunRecord("r1"))
    meters.record(record)
    return {name: value for name, value in asdict(record).items() if empty[name] is None and value is not None}


@pytest.fixture
def clock(clock_of):
    return clock_of(timings, 100.0)


def test_rows_come_back_without_what_was_measured(clock):
    given = rows((0.5, 0.25, 100, 0, 1.0, "d1"))
    assert Meters(90.0, 1).take(given) == pa.table({"uri": ["0"]})


def test_sums_and_rates(clock):
    """From the first results on, at 110, 3 images came in 5 s, of which two detectors worked 3 s each."""
    run = Meters(started_s=90.0, most_detectors=4)
    clock.now = 110.0
    run.take(rows((0.5, 0.25, 100, 0, 9.0, "d1"), (0.5, 0.25, 100, 1, 9.0, "d1")))
    clock.now = 112.0
    run.take(rows((1.0, 0.5, 50, 0, 4.0, "d2"), (None, None, None, None, None, None)))
    clock.now = 115.0
    run.take(rows((1.0, 0.5, 50, 0, 2.0, "d1")))
    clock.now = 200.0
    assert recorded(run) == {
        "fetch_s": 3.0, "decode_s": 1.5, "detect_s": 24.0, "bytes_read": 300, "num_retries": 1, "num_detectors": 2,
        "start_up_s": 20.0, "stream_s": 5.0, "stream_images_per_s": 0.6, "detector_busy_share": 0.6,
    }  # fmt: skip


def test_what_came_at_once_has_no_rate(clock):
    run = Meters(started_s=90.0, most_detectors=2)
    run.take(rows((0.5, 0.25, 100, 0, 1.0, "d1")))
    found = recorded(run)
    assert (found["start_up_s"], found["stream_s"], found["detect_s"]) == (10.0, 0.0, 1.0)
    assert "stream_images_per_s" not in found
    assert "detector_busy_share" not in found


def test_a_run_without_results_has_no_times():
    assert recorded(Meters(started_s=90.0, most_detectors=2)) == {
        "fetch_s": 0.0, "decode_s": 0.0, "detect_s": 0.0, "bytes_read": 0, "num_retries": 0,
    }  # fmt: skip


def test_detectors_that_took_the_place_of_dead_ones_are_not_counted_beside_them(clock):
    run = Meters(started_s=90.0, most_detectors=2)
    run.take(rows(*((0.0, 0.0, 0, 0, 0.0, f"d{number}") for number in range(5))))
    assert recorded(run)["num_detectors"] == 2
