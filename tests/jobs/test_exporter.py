"""What is served of records, without a server."""

import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs import exporter
from jobs.exporter import GAUGES, TableCollector, limit_samples, samples
from jobs.specs.settings import AlertSettings
from pipeline.table.delta import ResultTable
from pipeline.table.run_records import RUNS, RunRecord, recorded
from tests.conftest import STARTUP_S, wait_until

LIMIT = re.compile("_limit(_|$)")
NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)


def record(hours_ago: float, outcome: str = "done", **columns: object) -> dict[str, object]:
    """Of a run that started then, and took an hour."""
    begun = NOW - timedelta(hours=hours_ago)
    ended = None if outcome == "running" else begun + timedelta(hours=1)
    return dict.fromkeys(RUNS.names) | {"outcome": outcome, "started_at": begun, "ended_at": ended} | columns


def served(*records: dict[str, object], last: dict[str, object] | None = None) -> dict[tuple[str, ...], float | None]:
    """Values by name and labels."""
    return {(name, *labels.values()): value for name, labels, value in samples(records, last, NOW)}


def test_of_a_table_without_runs() -> None:
    found = served()
    assert {name[0] for name in found} == {"recent_runs"}
    assert set(found.values()) == {0}


def test_a_table_without_a_complete_run_is_given_time_from_its_first_run_on() -> None:
    found = served(record(1, "failed"), record(9, "failed"))
    assert found["last_success_timestamp_seconds",] == (NOW - timedelta(hours=9)).timestamp()


def test_limits_of_alerts_are_those_of_the_spec() -> None:
    limits = {name: value for name, _, value in limit_samples(AlertSettings(no_success_h=50, failed_share=0.1))}
    assert set(limits) == {name for name in GAUGES if LIMIT.search(name)}
    assert (limits["no_success_limit_seconds"], limits["failed_share_limit"], limits["slow_share_limit"]) == (
        180_000,
        0.1,
        0.5,
    )


def test_of_the_last_run_that_ended() -> None:
    counts = {"listed": 10, "already_done": 2, "planned": 8, "ok": 6, "failed": 2}
    figures = {"images_per_s": 4.0, "detect_s": 30.0, "detector_busy_share": 0.5, "lag_s": 7.0, "cost": 2.5}
    found = served(
        record(2, "running"),
        record(5, **counts, **figures),
        record(29, "failed"),
        last={"ended_at": "2026-11-25T04:00:00+00:00"},
    )
    assert (
        found["last_success_timestamp_seconds",]
        == found["last_run_end_timestamp_seconds",]
        == (NOW - timedelta(hours=4)).timestamp()
    )
    assert found["running_since_timestamp_seconds",] == (NOW - timedelta(hours=2)).timestamp()
    assert [found["last_run_outcome", name] for name in ("done", "failed", "overtaken", "stopped")] == [
        True,
        False,
        False,
        False,
    ]
    assert {name: found["last_run_images", name] for name in counts} == counts
    assert (found["last_run_failed_share",], found["last_run_lag_seconds",], found["last_run_cost",]) == (
        0.25,
        7.0,
        2.5,
    )
    assert (found["last_run_stage_seconds", "detect"], found["last_run_stage_seconds", "fetch"]) == (30.0, None)
    assert (found["recent_runs", "done"], found["recent_runs", "running"], found["recent_runs", "failed"]) == (1, 1, 0)


def test_a_run_that_was_killed_is_not_running_when_another_came_after_it() -> None:
    found = served(record(1), record(2, "running"))
    assert ("running_since_timestamp_seconds",) not in found
    assert found["recent_runs", "running"] == 1


def test_who_was_overtaken_is_seen_beside_who_overtook() -> None:
    assert served(record(1), record(2, "overtaken"))["recent_runs", "overtaken"] == 1


def test_a_night_without_images_has_no_failures() -> None:
    assert served(record(1, planned=0, failed=0))["last_run_failed_share",] == 0
    assert ("last_run_failed_share",) not in served(record(1, "failed", planned=3))


def test_throughput_is_held_against_the_median_of_long_runs_before() -> None:
    def run(images_per_s: float, stream_s: float = 60.0, outcome: str = "done") -> dict[str, object]:
        return record(5, outcome, stream_s=stream_s, stream_images_per_s=images_per_s)

    found = served(run(9.0, stream_s=59.0), run(8.0, outcome="failed"), run(5.0), run(10.0), run(20.0), run(60.0))
    assert (found["steady_images_per_second",], found["usual_images_per_second",]) == (5.0, 20.0)
    assert ("usual_images_per_second",) not in served(run(5.0), run(10.0), run(20.0))


def test_a_table_that_can_not_be_read_hides_no_other(tmp_path: Path) -> None:
    good, missing = ResultTable(str(tmp_path / "good")), str(tmp_path / "missing")
    good.create()
    with recorded(good, RunRecord(run_id="r1", planned=3)) as made:
        made.failed = 1
    values = {
        (sample.name, sample.labels["table"]): sample.value
        for family in TableCollector(dict.fromkeys((missing, good.url), AlertSettings())).collect()
        for sample in family.samples
        if set(sample.labels) == {"table"}
    }
    assert (values["ssd_batch_table_readable", missing], values["ssd_batch_table_readable", good.url]) == (0, 1)
    assert values["ssd_batch_last_run_failed_share", good.url] == 1 / 3
    assert [name for name, table in values if table == missing and not LIMIT.search(name)] == [
        "ssd_batch_table_readable"
    ]


def test_tables_are_read_once_in_a_while(tmp_path: Path, monkeypatch) -> None:
    """By a clock that the test moves."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    def readable() -> float:
        return {family.name: family for family in collector.collect()}["ssd_batch_table_readable"].samples[0].value

    clock = Clock()
    monkeypatch.setattr(exporter, "time", clock)
    table = ResultTable(str(tmp_path / "table"))
    collector = TableCollector({table.url: AlertSettings()})
    assert readable() == 0
    table.create()
    assert readable() == 0
    clock.now += exporter.CACHE_S
    assert readable() == 1


def test_a_store_that_does_not_answer_keeps_no_scrape_waiting(tmp_path: Path, monkeypatch) -> None:
    """What was read before is still served, so that alerts on it still see it; and whether it can be read, with no gap."""
    table, asked, answer = ResultTable(str(tmp_path / "table")), threading.Event(), threading.Event()
    table.create()
    with recorded(table, RunRecord(run_id="r1", planned=3)) as made:
        made.failed = 1
    monkeypatch.setattr(exporter, "CACHE_S", 0.0)
    collector = TableCollector({table.url: AlertSettings()})

    def values() -> dict[str, float]:
        return {sample.name: sample.value for family in collector.collect() for sample in family.samples}

    assert values()["ssd_batch_table_readable"] == 1
    monkeypatch.setattr(exporter, "WAIT_S", 0.0)

    def hang(*_: object) -> None:
        asked.set()
        answer.wait()
        raise OSError("no route to host")

    monkeypatch.setattr(exporter, "list_runs", hang)
    values()
    assert asked.wait(STARTUP_S)
    assert values()["ssd_batch_table_readable"] == 1, "a slow answer is no outage"
    monkeypatch.setattr(exporter, "LATE_S", 0.0)
    assert values()["ssd_batch_table_readable"] == 0
    assert values()["ssd_batch_last_run_failed_share"] == pytest.approx(1 / 3)
    monkeypatch.setattr(exporter, "LATE_S", 3600.0)
    answer.set()
    wait_until(lambda: values()["ssd_batch_table_readable"] == 0)


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    """Of scrapes: on a busy machine a table may take its time."""
    monkeypatch.setattr(exporter, "WAIT_S", STARTUP_S)


def test_a_damaged_mark_of_the_last_complete_run_is_no_alarm() -> None:
    found = served(record(2, "failed"), record(5), record(900))
    assert found["last_success_timestamp_seconds",] == (NOW - timedelta(hours=4)).timestamp()
