"""The dashboard and the alerts, by a real Prometheus that watches a real run."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.exporter import GAUGES
from pipeline.stages.prometheus import METRICS
from pipeline.table.delta import ResultTable
from pipeline.table.run_records import RunRecord, recorded
from tests.chaos.places import SLOWLY
from tests.chaos.processes import kill_tree
from tests.chaos.ray_nodes import RayNodes
from tests.conftest import answers, free_port, wait_until
from tests.e2e.command import infer, jpeg, start

MONITORING = Path(__file__).parents[2] / "infra/monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NUM_IMAGES = 300
EACH_SECOND = {"RAY_metrics_report_interval_ms": "1000"}
"""Processes of Ray, the driver too, tell their metrics: rates need several samples of a run that is soon over."""
RUN_METRICS = {f"ray_{metric.info['name']}" for metric in METRICS}
HISTOGRAM_OR_COUNTER = re.compile(r"_(total|bucket|count)$")


def test_dashboard_and_alerts_are_of_metrics_that_exist() -> None:
    texts = [
        (MONITORING / "alerts.yaml").read_text(),
        *(target["expr"] for panel in PANELS for target in panel["targets"]),
    ]
    named = {
        HISTOGRAM_OR_COUNTER.sub("", name) for text in texts for name in re.findall(r"(?:ray_)?ssd_batch_\w+", text)
    }
    assert len(named) > 20
    assert named <= RUN_METRICS | {f"ssd_batch_{name}" for name in GAUGES}


def test_each_panel_has_a_place_and_a_description() -> None:
    corners = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(corners) == len(DASHBOARD["panels"]) == len({panel["id"] for panel in DASHBOARD["panels"]})
    assert all(panel["description"].endswith(".") for panel in PANELS)


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> Path:
    """The folder of prometheus and promtool."""
    folder: Path | None = request.config.getoption("--prometheus")
    if folder is None:
        pytest.skip("make test-monitoring runs this, with Prometheus")
    return folder


@pytest.mark.monitoring
def test_promtool_takes_rules_and_configuration(programs: Path) -> None:
    for command in (
        ("check", "rules", "--lint-fatal", "alerts.yaml"),
        ("test", "rules", "alerts_test.yaml"),
        ("check", "config", "prometheus.yaml"),
        ("check", "config", "prometheus-kubernetes.yaml"),
    ):
        checked = subprocess.run([programs / "promtool", *command], cwd=MONITORING, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


class Prometheus:
    """A server of the project's own configuration, at a port."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def query(self, expression: str, since_s: float) -> list[dict[str, Any]]:
        """All series that an expression had since then, second by second, the last one not before now; raises where it is none."""
        span = {"query": expression, "start": since_s, "end": time.time() + 1, "step": 1}
        found: list[dict[str, Any]] = self._get("query_range", span)["result"]
        return found

    def values(self, expression: str) -> list[float]:
        """Now."""
        return [float(series["value"][1]) for series in self._get("query", {"query": expression})["result"]]

    def alerts(self) -> set[str]:
        """Those that are pending or firing."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts", {})["alerts"]}

    def _get(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url}{path}?{urllib.parse.urlencode(parameters)}") as answer:
            content = json.load(answer)
        assert content["status"] == "success"
        data: dict[str, Any] = content["data"]
        return data


@contextmanager
def running(process: subprocess.Popen[Any], port: int) -> Iterator[None]:
    """A server, until it answers and while inside."""
    try:
        wait_until(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None, f"{process.args} did not start"
        yield
    finally:
        kill_tree(process.pid)
        process.communicate()


@contextmanager
def prometheus(programs: Path, folder: Path, ray_targets: Path, exporter_port: int) -> Iterator[Prometheus]:
    """Looking each second, where this test's processes are."""
    text = (MONITORING / "prometheus.yaml").read_text()
    for told, here in (
        ("/tmp/ray/prom_metrics_service_discovery.json", str(ray_targets)),
        ("127.0.0.1:9464", f"127.0.0.1:{exporter_port}"),
        ("alerts.yaml", str(MONITORING / "alerts.yaml")),
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("evaluation_interval: 30s", "evaluation_interval: 1s"),
    ):
        assert text.count(told) == 1
        text = text.replace(told, here)
    (folder / "prometheus.yaml").write_text(text)
    port = free_port()
    command = [
        programs / "prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with open(folder / "prometheus.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    with running(server, port):
        yield Prometheus(port)


@contextmanager
def cluster() -> Iterator[tuple[RayNodes, Path]]:
    """A head without cores, a node whose detectors take their time, and the file that names their metrics' ports."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | SLOWLY | EACH_SECOND | {"PATH": path}
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        nodes = RayNodes(Path(folder), environment, head_cpus=0, has_job_server=True)
        try:
            nodes.add()
            targets = Path(folder, "n1", "prom_metrics_service_discovery.json")
            wait_until(targets.exists)
            yield nodes, targets
        finally:
            nodes.stop()


def earlier_nights(table: ResultTable) -> None:
    """Four that took long enough to count, the last of them the slowest."""
    table.create()
    for night, images_per_s in enumerate((50.0, 50.0, 50.0, 20.0), start=1):
        begun = datetime.now(UTC) - timedelta(days=5 - night)
        times = {"started_at": begun, "stream_s": 100.0, "stream_images_per_s": images_per_s, "outcome": "running"}
        with recorded(table, RunRecord(run_id=f"night-{night}", **times)) as record:
            record.planned, record.ok, record.failed = 5000, 5000, 0


def pictures(folder: Path) -> Path:
    """One of them broken."""
    folder.mkdir()
    for number in range(NUM_IMAGES - 1):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    (folder / "broken.jpg").write_bytes(jpeg()[:200])
    return folder


@pytest.mark.monitoring
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_prometheus_answers_all_that_the_dashboard_asks(programs: Path, model: Path, tmp_path: Path) -> None:
    table = ResultTable(str(tmp_path / "table"))
    earlier_nights(table)
    port, begun_s = free_port(), time.time()
    due_at = datetime.now(UTC) - timedelta(minutes=10)
    exporter = start("exporter", "--table", table.url, "--port", port)
    with (
        running(exporter, port),
        cluster() as (nodes, targets),
        prometheus(programs, tmp_path, targets, port) as server,
    ):
        run = infer(
            "--input", pictures(tmp_path / "pictures"), "--table", table.url, "--model", model,
            "--address", nodes.address, "--commit-interval-s", 1, "--batch-size", 4, "--price-per-node-hour", 3.5,
            "--due-at", due_at.isoformat(), environment=nodes.environment | EACH_SECOND,
        )  # fmt: skip
        assert (run["ok"], run["failed"]) == (NUM_IMAGES - 1, 1)
        wait_until(lambda: server.values('ssd_batch_last_run_images{count="ok"}') == [NUM_IMAGES - 1], timeout_s=90)
        for panel in PANELS:
            for target in panel["targets"]:
                expression = target["expr"].replace("$table", ".*").replace("$__rate_interval", "1m")
                assert server.query(expression, begun_s), f"{panel['title']}: {expression} has no data"

        counted = server.query("sum by (status) (ray_ssd_batch_images_total)", begun_s)
        last = {series["metric"]["status"]: float(series["values"][-1][1]) for series in counted}
        assert 0 < last["ok"] <= NUM_IMAGES - 1
        assert last.get("failed", 1) == 1
        (lag,) = server.values("ssd_batch_last_run_lag_seconds")
        assert lag >= 600
        wait_until(lambda: "Slow" in server.alerts())
        assert server.alerts() == {"Slow"}
