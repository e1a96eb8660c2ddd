"""The exporter of run records to Prometheus. It outlives the runs, whose own metrics end with them."""

import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from jobs.specs.settings import AlertSettings
from pipeline.errors import SettingError, reason
from pipeline.inference.estimate import LONG_S
from pipeline.table.delta import ResultTable
from pipeline.table.find_runs import Record, list_runs
from pipeline.table.run_records import last_complete
from pipeline.urls import as_label

logger = logging.getLogger(__name__)

CACHE_S = 30.0
"""The seconds for which scrapes get the same answer: each table is read once for all clients."""
WAIT_S = 5.0
"""The seconds that a scrape waits for tables to be read. Prometheus itself waits for ten."""
LATE_S = 120.0
"""The seconds without an answer of the store, good or bad, after which a table counts as one that can't be read."""
NUM_RECORDS = 200
RECENT = timedelta(hours=26)
NUM_USUAL, MIN_USUAL = 20, 3
"""The largest and the smallest number of runs whose median is the usual throughput. With fewer runs there is none."""
OUTCOMES = ("running", "done", "failed", "overtaken", "stopped")
STAGES = ("start_up", "stream", "fetch", "decode", "detect", "commit")
COUNTS = ("listed", "already_done", "planned", "ok", "failed")

GAUGES = {
    "table_readable": "1 if the table's records can be read now; if not, the others are of the last time that they could.",
    "last_success_timestamp_seconds": "End of the last complete run; if there is none yet, the end of the last run that is done, or the start of the first known run.",
    "running_since_timestamp_seconds": "Start of the last run, if it has no end yet: it is running, or was killed.",
    "recent_runs": "Number of runs in the last 26 hours, by outcome; running also counts runs that were killed.",
    "last_run_outcome": "1 for the outcome of the last run that ended.",
    "last_run_start_timestamp_seconds": "Start of the last run that ended.",
    "last_run_end_timestamp_seconds": "End of the last run that ended.",
    "last_run_images": "Images of the last run that ended: listed, already_done, planned, ok, failed.",
    "last_run_failed_share": "Share of the last run's planned images that failed.",
    "last_run_images_per_second": "Images per second of the last run, from its start to its end.",
    "last_run_stage_seconds": "Seconds of the last run by stage; fetch, decode and detect are summed over images.",
    "last_run_detector_busy_share": "Share of its detectors' time in which the last run detected.",
    "last_run_lag_seconds": "Seconds from when the last run was due to its start.",
    "last_run_cost": "Cost of the last run, in the unit of price_per_node_hour.",
    "last_run_cost_per_thousand_images": "Cost of the last run per thousand images, in the unit of price_per_node_hour.",
    "steady_images_per_second": f"Images per second from the first results on, of the last run that streamed for {LONG_S} s or more.",
    "usual_images_per_second": "Median of the steady throughput of the runs before.",
    "no_success_limit_seconds": "Limit of the alert NoSuccess, from the spec: seconds without a complete run.",
    "failed_share_limit": "Limit of the alert ManyFailures, from the spec: share of the planned images.",
    "slow_share_limit": "Limit of the alert Slow, from the spec: share of the usual throughput.",
    "lag_limit_seconds": "Limit of the alert Late, from the spec: seconds from when a run was due to its start.",
    "running_limit_seconds": "Limit of the alert TooLong, from the spec: seconds since the start of a run without an end.",
}
"""The gauges that are served, with their help texts. Each name gets the prefix ssd_batch_; each gauge has the label table."""

Sample = tuple[str, dict[str, str], float | None]
"""A gauge of `GAUGES`, its labels and its value; a sample whose value is None is left out."""


class Watched:
    """A table, and what was last read of it.

    Args:
        url: the table's URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._reading: threading.Thread | None = None
        self._last: list[Sample] = []
        self._is_readable = False
        self._ended_s = -LATE_S
        """The time at which the last reading ended, well or not."""

    def look(self) -> threading.Thread | None:
        """Begin to read the table, unless that was done less than `CACHE_S` ago. Return the thread that reads it, if one does."""
        if self._reading and self._reading.is_alive():
            return self._reading
        self._reading = None
        if time.monotonic() - self._ended_s >= CACHE_S:
            reading = threading.Thread(target=self._read, daemon=True)
            reading.start()
            self._reading = reading
        return self._reading

    def samples(self) -> list[Sample]:
        """Return the samples of the last time that the table could be read, and whether it can be read now.

        A table whose store does not answer for `LATE_S` can't be read.
        """
        is_late = time.monotonic() - self._ended_s >= LATE_S
        return [("table_readable", {}, float(self._is_readable and not is_late)), *self._last]

    def _read(self) -> None:
        try:
            table = ResultTable(self._url)
            self._last = list(samples(list_runs(table, NUM_RECORDS), last_complete(table), datetime.now(UTC)))
            self._is_readable = True
        except Exception as error:  # of whatever kind: the other tables are still watched
            self._is_readable = False
            logger.warning("table %s can't be read: %s", self._url, reason(error))
        self._ended_s = time.monotonic()


class TableCollector(Collector):
    """The samples of tables, at most `CACHE_S` seconds old where they are asked for as often, unless a table can't be read.

    No scrape waits for longer than `WAIT_S`.

    Args:
        tables: the limits of each table's alerts, by its URL.
    """

    def __init__(self, tables: Mapping[str, AlertSettings]) -> None:
        self._limits = {url: list(limit_samples(alerts)) for url, alerts in tables.items()}
        self._watched = {url: Watched(url) for url in tables}
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as Prometheus's client asks for them."""
        families: dict[str, Metric] = {
            name: GaugeMetricFamily(f"ssd_batch_{name}", text) for name, text in GAUGES.items()
        }
        with self._lock:
            readings = [reading for watched in self._watched.values() if (reading := watched.look())]
        until_s = time.monotonic() + WAIT_S
        for reading in readings:
            reading.join(max(0.0, until_s - time.monotonic()))
        for url, watched in self._watched.items():
            for name, labels, value in (*self._limits[url], *watched.samples()):
                if value is not None:
                    families[name].add_sample(f"ssd_batch_{name}", {"table": as_label(url)} | labels, value)
        yield from families.values()


def limit_samples(alerts: AlertSettings) -> Iterator[Sample]:
    """Yield the limits that the rules of alerts compare with."""
    yield "no_success_limit_seconds", {}, 3600 * alerts.no_success_h
    yield "failed_share_limit", {}, alerts.failed_share
    yield "slow_share_limit", {}, alerts.slow_share
    yield "lag_limit_seconds", {}, 3600 * alerts.late_h
    yield "running_limit_seconds", {}, 3600 * alerts.long_h


def samples(records: Sequence[Record], last: dict[str, Any] | None, now: datetime) -> Iterator[Sample]:
    """Yield the samples of run records.

    Args:
        records: the records of a table's runs, the newest first.
        last: the table's last complete run.
        now: the current time, with a time zone.
    """
    if last:
        yield "last_success_timestamp_seconds", {}, datetime.fromisoformat(last["ended_at"]).timestamp()
    elif done := [run for run in records if run["outcome"] == "done"]:  # their mark may be damaged
        yield "last_success_timestamp_seconds", {}, done[0]["ended_at"].timestamp()
    elif records:
        yield "last_success_timestamp_seconds", {}, records[-1]["started_at"].timestamp()
    for outcome in OUTCOMES:
        recent = [run for run in records if run["outcome"] == outcome and run["started_at"] > now - RECENT]
        yield "recent_runs", {"outcome": outcome}, len(recent)
    if records and records[0]["outcome"] == "running":
        yield "running_since_timestamp_seconds", {}, records[0]["started_at"].timestamp()
    ended = [run for run in records if run["outcome"] != "running"]
    if ended:
        yield from run_samples(ended[0])
    yield from throughput_samples(ended)


def run_samples(run: Record) -> Iterator[Sample]:
    """Yield the samples of the last run that ended."""
    for outcome in OUTCOMES[1:]:
        yield "last_run_outcome", {"outcome": outcome}, run["outcome"] == outcome
    yield "last_run_start_timestamp_seconds", {}, run["started_at"].timestamp()
    yield "last_run_end_timestamp_seconds", {}, run["ended_at"].timestamp()
    for name in COUNTS:
        yield "last_run_images", {"count": name}, run[name]
    if run["failed"] is not None:
        yield "last_run_failed_share", {}, run["failed"] / (run["planned"] or 1)
    for stage in STAGES:
        yield "last_run_stage_seconds", {"stage": stage}, run[f"{stage}_s"]
    yield "last_run_images_per_second", {}, run["images_per_s"]
    yield "last_run_detector_busy_share", {}, run["detector_busy_share"]
    yield "last_run_lag_seconds", {}, run["lag_s"]
    yield "last_run_cost", {}, run["cost"]
    yield "last_run_cost_per_thousand_images", {}, run["cost_per_thousand"]


def throughput_samples(ended: Sequence[Record]) -> Iterator[Sample]:
    """Yield the throughput of runs that are done and took long enough to measure it."""
    speeds = [
        run["stream_images_per_s"] for run in ended if run["outcome"] == "done" and (run["stream_s"] or 0) >= LONG_S
    ]
    if speeds:
        yield "steady_images_per_second", {}, speeds[0]
    if len(before := speeds[1 : 1 + NUM_USUAL]) >= MIN_USUAL:
        yield "usual_images_per_second", {}, statistics.median(before)


def serve(tables: Mapping[str, AlertSettings], host: str, port: int) -> NoReturn:
    """Answer Prometheus until a signal comes. This ends the process.

    Args:
        tables: the limits of each table's alerts, by its path or URL.
        host: the address to listen at.
        port: the port to listen at; 0 for a free one.

    Raises:
        SettingError: the port can't be listened at.
    """
    registry = CollectorRegistry()
    registry.register(TableCollector({ResultTable(url).url: alerts for url, alerts in tables.items()}))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingError(f"port: {port} of {host} can't be listened at ({reason(error)}); give another") from error
    logger.info("metrics of %s at http://%s:%s/metrics", ", ".join(tables), host, server.server_port)
    with suppress(KeyboardInterrupt):
        thread.join()
    server.shutdown()
    server.server_close()
    sys.stderr.flush()
    os._exit(0)  # Python would wait for the threads of a store that does not answer
