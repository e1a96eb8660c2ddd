"""Against a server that keeps RayJobs as the Kubernetes API does, and ends them as KubeRay would: neither is to be had here."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from infra.kubernetes.components.cronjob.run_rayjob import RayJobs, copy_of, exit_code, run

NIGHT = "nightly-29384650"
TEMPLATE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "nightly"},
    "spec": {"suspend": True, "entrypoint": "ssd-batch infer", "activeDeadlineSeconds": 75_600},
    "status": {"jobDeploymentStatus": "Suspended"},
}
SUCCEEDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
STOPPED = {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED", "message": "Job was intentionally stopped."}
TOO_LATE = {
    "jobDeploymentStatus": "Failed",
    "reason": "DeadlineExceeded",
    "message": "The RayJob has passed the activeDeadlineSeconds.",
}


def failed(code: int) -> dict[str, str]:
    message = f"Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):\nexit code 7"
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}


class Cluster(ThreadingHTTPServer):
    """Keeps RayJobs; each that is created runs for two looks, and ends as the next of `ends` says.

    Answers who brings the account's token of the moment, which changes at each look; of each three, one is that it is busy.
    """

    def __init__(self, account: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.account = account
        self.rayjobs = {"nightly": TEMPLATE}
        self.ends: list[dict[str, str]] = []
        self.looks = self.requests = 0
        self.renew_token()

    def renew_token(self) -> None:
        self.token = f"token-{self.requests}"
        (self.account / "token").write_text(self.token)

    @property
    def client(self) -> RayJobs:
        return RayJobs("ssd-batch", f"http://127.0.0.1:{self.server_port}", self.account)

    def look_at(self, name: str) -> dict:
        rayjob = self.rayjobs[name]
        if name != "nightly" and "status" not in rayjob:
            self.looks += 1
            if self.looks % 3 == 0:
                rayjob["status"] = self.ends.pop(0)
        return rayjob


class Handler(BaseHTTPRequestHandler):
    server: Cluster

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.requests % 3 == 0:
            return self.answer(503, {})
        url = urlsplit(self.path)
        name = url.path.partition("/namespaces/ssd-batch/rayjobs")[2].strip("/")
        if name:
            return self.answer(200, self.server.look_at(name))
        key, _, value = parse_qs(url.query)["labelSelector"][0].partition("=")
        found = [job for job in self.server.rayjobs.values() if job["metadata"].get("labels", {}).get(key) == value]
        return self.answer(200, {"items": found})

    def do_POST(self) -> None:
        rayjob = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.rayjobs[rayjob["metadata"]["name"]] = rayjob
        self.answer(201, rayjob)

    def answer(self, code: int, body: dict) -> None:
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            code, body = 401, {}
        elif code < 300:
            self.server.renew_token()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()


def pod(cluster: Cluster) -> int:
    """One pod of the night's Job, to its end."""
    return run(cluster.client, "nightly", NIGHT, "uid-1", poll_s=0.01)


def test_a_night_that_succeeds(cluster: Cluster) -> None:
    cluster.ends = [SUCCEEDED]
    assert pod(cluster) == 0
    copy = cluster.rayjobs[f"{NIGHT}-1"]
    entrypoint = "ssd-batch infer --due-at 2025-11-14T00:10:00+00:00"
    assert copy["spec"] == {"suspend": False, "entrypoint": entrypoint, "activeDeadlineSeconds": 600}
    assert copy["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": NIGHT, "uid": "uid-1"}
    ]


def test_a_nights_attempts_end_together_before_the_next_night() -> None:
    due_minute = int(time.time()) // 60 - 5 * 60
    spec = copy_of(TEMPLATE, f"nightly-{due_minute}", "uid-1", number=2)["spec"]
    assert 16 * 3600 - 120 <= spec["activeDeadlineSeconds"] <= 16 * 3600


def test_a_job_made_by_hand_is_not_due_at_any_time(cluster: Cluster) -> None:
    cluster.ends = [SUCCEEDED]
    assert run(cluster.client, "nightly", "try-1", "uid-1", poll_s=0.01) == 0
    assert cluster.rayjobs["try-1-1"]["spec"]["entrypoint"] == "ssd-batch infer"


@pytest.mark.parametrize(
    ("end", "code"), [(failed(4), 4), (failed(2), 2), (failed(137), 137), (TOO_LATE, 1), (STOPPED, 1)]
)
def test_the_exit_code_is_the_commands(cluster: Cluster, end: dict[str, str], code: int) -> None:
    cluster.ends = [end]
    assert pod(cluster) == code


def test_a_driver_killed_by_a_signal_has_no_exit_code_of_its_own() -> None:
    assert exit_code({"status": failed(-9)}) == 1


def test_a_pod_after_a_failed_attempt_makes_the_next(cluster: Cluster) -> None:
    cluster.ends = [failed(1), SUCCEEDED]
    assert [pod(cluster), pod(cluster)] == [1, 0]
    assert set(cluster.rayjobs) == {"nightly", f"{NIGHT}-1", f"{NIGHT}-2"}


@pytest.mark.parametrize("status", [None, SUCCEEDED])
def test_a_pod_after_one_that_was_lost_makes_no_other_attempt(cluster: Cluster, status: dict[str, str] | None) -> None:
    lost = {**TEMPLATE, "metadata": {"name": f"{NIGHT}-1", "labels": {"ssd-batch/night": NIGHT}}}
    del lost["status"]
    cluster.rayjobs[f"{NIGHT}-1"] = lost | ({"status": status} if status else {})
    cluster.ends = [SUCCEEDED]
    assert pod(cluster) == 0
    assert set(cluster.rayjobs) == {"nightly", f"{NIGHT}-1"}


def test_another_night_is_another_rayjob(cluster: Cluster) -> None:
    cluster.ends = [SUCCEEDED, SUCCEEDED]
    assert pod(cluster) == 0
    assert run(cluster.client, "nightly", "nightly-29386090", "uid-2", poll_s=0.01) == 0
    assert "nightly-29386090-1" in cluster.rayjobs
