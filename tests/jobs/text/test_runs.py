from datetime import UTC, date, datetime

import pytest

from jobs.text.runs import bottleneck, describe_dry_run, describe_run, describe_runs
from pipeline.errors import SettingError
from pipeline.inference.estimate import Estimate, Throughput
from pipeline.inference.summary import DryRunSummary
from pipeline.table.delta import ResultTable
from pipeline.table.find_runs import find_run, list_runs
from pipeline.table.run_records import RUNS, RunRecord, recorded

BALANCED = {
    "run_id": "20260102T030000Z-aa", "run_date": date(2026, 1, 2), "outcome": "done", "host": "h", "model_name": "tiny",
    "model_digest": "0123456789abcdef", "started_at": datetime(2026, 1, 2, 3, tzinfo=UTC), "wall_s": 120.0, "images_per_s": 8.3,
    "listed": 1000, "already_done": 0, "planned": 1000, "ok": 990, "failed": 10, "start_up_s": 20.0, "stream_s": 100.0,
    "stream_images_per_s": 9.9, "fetch_s": 10.0, "decode_s": 20.0, "detect_s": 190.0, "commit_s": 2.0, "detector_busy_share": 0.95,
    "num_detectors": 2, "num_nodes": 1, "bytes_read": 21_000_000, "num_retries": 0, "cost": 0.5, "cost_per_thousand": 0.5,
}  # fmt: skip
"""A run whose detectors were busy."""


def record(**columns: object) -> dict[str, object]:
    return dict.fromkeys(RUNS.names) | BALANCED | columns


@pytest.mark.parametrize(
    ("columns", "stage"),
    [
        ({}, "detecting"),
        ({"wall_s": 39.0}, "start-up"),
        ({"wall_s": None, "stream_s": 19.0}, "start-up"),  # it was stopped
        ({"detector_busy_share": 0.79, "commit_s": 51.0}, "committing"),
        ({"detector_busy_share": 0.79}, "decoding"),
        ({"detector_busy_share": None}, "decoding"),
        ({"detector_busy_share": 0.1, "fetch_s": 20.1}, "reading"),
    ],
)
def test_what_a_run_waited_for(columns, stage):
    found = bottleneck(record(**columns))
    assert found is not None
    assert found.stage == stage
    assert f"bottleneck: {stage}: {found.why}\nto change it: {found.change}" in describe_run(record(**columns))


def test_repeated_requests_are_told():
    found = bottleneck(record(detector_busy_share=0.1, fetch_s=30.0, num_retries=1234))
    assert found is not None
    assert "1,234 requests had to be repeated" in found.why


def test_a_record_without_measurements_has_no_bottleneck():
    empty = dict.fromkeys(RUNS.names) | {"run_id": "r1", "outcome": "failed", "error": "disk full", "host": "h"}
    assert bottleneck(empty) is None
    told = describe_run(empty)
    assert "error: disk full" in told
    assert "– planned" in told
    assert "times: none" in told


def test_all_of_a_run_is_told():
    told = describe_run(record())
    assert "images: 1,000 listed, 0 already done, 1,000 planned, 990 ok, 10 failed" in told
    assert "20.0 s to the first results, then 100.0 s at 9.9 images/s; 120.0 s in all" in told
    assert "2 detectors on 1 nodes, busy for 95% of the time; 21,000,000 bytes read, 0 requests repeated" in told
    assert "cost: 0.50, 0.5000 per thousand images" in told
    assert "was killed" in describe_run(record(outcome="running"))


def test_the_list_has_a_line_a_run():
    stopped = record(run_id="stopped", outcome="stopped", ok=None, wall_s=None, images_per_s=None, cost=None)
    header, first, second = describe_runs([record(), stopped]).splitlines()
    assert header.split() == [
        "run",
        "date",
        "outcome",
        "model",
        "planned",
        "ok",
        "failed",
        "seconds",
        "images/s",
        "cost",
    ]
    assert first.split() == [
        "20260102T030000Z-aa", "2026-01-02", "done", "tiny", "01234567", "1,000", "990", "10", "120.0", "8.3", "0.50",
    ]  # fmt: skip
    assert second.split()[-6:] == ["1,000", "–", "10", "–", "–", "–"]


@pytest.fixture
def table(tmp_path) -> ResultTable:
    table = ResultTable(str(tmp_path / "table"))
    table.create()
    for run_id in ("r1", "r20", "r21"):
        with recorded(table, RunRecord(run_id=run_id)):
            pass
    return table


def test_the_newest_runs_are_listed_first(table):
    assert [found["run_id"] for found in list_runs(table, 2)] == ["r21", "r20"]


def test_a_run_is_found_by_the_beginning_of_its_id(table):
    assert find_run(table, "r1")["run_id"] == "r1"
    assert find_run(table, "r20")["run_id"] == "r20"
    with pytest.raises(SettingError, match="several, such as r21, r20"):
        find_run(table, "r2")
    with pytest.raises(SettingError, match="no record of it"):
        find_run(table, "r'3")


def dry_run(**columns: object) -> DryRunSummary:
    counts = ("r1", "table", "m1", 36_000, 0, 0, 36_000, 0, 0, 1.0, 0.0)
    measured = Throughput("r0", "0123456789abcdef", 10.0, 36.0, 2, 1)
    told = {
        "planned_bytes": 1_000_000,
        "measured": measured,
        "estimates": [Estimate(1, 1.01, 2.02), Estimate(2, 0.51, None)],
    }
    return DryRunSummary(*counts, **(told | columns))


def test_what_a_run_would_take():
    first, header, one, two = describe_dry_run(dry_run()).splitlines()
    assert first == (
        "a run would do 36,000 images, 1,000,000 bytes; as fast as run r0 (10.0 images/s a detector, model 0123456789ab):"
    )
    assert (header.split(), one.split(), two.split()) == (
        ["detectors", "hours", "cost"], ["1", "1.01", "2.02"], ["2", "0.51", "–"],
    )  # fmt: skip


def test_what_is_not_known_is_said():
    told = describe_dry_run(dry_run(planned_bytes=None, measured=None, estimates=[]))
    assert told == (
        "a run would do 36,000 images, an unknown number of bytes; how long it takes is not known, as no run of this table has "
        "been measured yet"
    )
