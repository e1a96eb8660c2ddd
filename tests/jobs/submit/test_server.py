"""Ray's job server, and which one is asked."""

import asyncio
import json
import os
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
from aiohttp import web
from click.testing import CliRunner
from ray.job_submission import JobDetails, JobStatus, JobType

from jobs.__main__ import cli
from jobs.specs.load import read_spec
from jobs.submit.attempts import is_final, submit_and_wait
from jobs.submit.server import Ended, JobServer, Log
from jobs.submit.submission import load_submission
from pipeline.errors import HeldError, SettingError

INFER = "kind: infer\ninput: [s3://bucket/a b, /photos]\ntable: s3://bucket/table\nmodel: s3://bucket/model\n"


def test_a_log_that_is_followed_twice_is_shown_once() -> None:
    shown: list[str] = []
    log = Log(shown.append)
    for start, text in (
        (0, "one\n"),
        (4, "two\n"),
        (0, "one\ntwo\n"),
        (0, "one\n"),
        (4, "two\nthree\n"),
        (8, "three\n"),
    ):
        log.show_from(start, text)
    assert "".join(shown) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("status", "exit_code", "final"),
    [("SUCCEEDED", 0, True), ("STOPPED", 1, True), ("FAILED", 1, False), ("FAILED", 3, True), ("FAILED", -9, False)]
    + [("FAILED", code, True) for code in (2, 4, 5)],
)
def test_what_is_tried_again(status: str, exit_code: int, final: bool) -> None:
    assert is_final(Ended("a-1", status, exit_code)) == final


def test_nothing_answers(tmp_path: Path, free_port: Any) -> None:
    (tmp_path / "spec.yaml").write_text(INFER)
    result = CliRunner().invoke(
        cli, ["submit", str(tmp_path / "spec.yaml"), "--address", f"http://127.0.0.1:{free_port()}"]
    )
    assert isinstance(result.exception, SettingError)
    assert "no job server answers there" in str(result.exception)


def test_who_lost_sight_of_a_night_follows_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd starts `submit --wait` again. An attempt that failed meanwhile is followed by the next."""
    (tmp_path / "night.yaml").write_text(INFER + "job: {backoff_s: 0}")
    submission = load_submission(read_spec(tmp_path / "night.yaml"), date(2026, 11, 25), {}, {})
    statuses = {"night-2026-11-25-1": JobStatus.FAILED, "night-2026-11-25-2": JobStatus.RUNNING}
    server, followed = JobServer.__new__(JobServer), []

    def jobs() -> list[JobDetails]:
        return [
            JobDetails(type=JobType.SUBMISSION, submission_id=name, status=status, entrypoint="python")
            for name, status in statuses.items()
        ]

    def begin(submission: Any, submission_id: str) -> str:
        statuses[submission_id] = JobStatus.RUNNING
        return submission_id

    def follow(submission_id: str, show: Any) -> Ended:
        followed.append(submission_id)
        statuses[submission_id] = JobStatus.FAILED if len(followed) == 1 else JobStatus.SUCCEEDED
        return Ended(submission_id, str(statuses[submission_id]), len(followed) == 1)

    for name, function in {"jobs": jobs, "_begin": begin, "follow": follow}.items():
        monkeypatch.setattr(server, name, function)
    assert submit_and_wait(server, submission, lambda text: None, print).status == "SUCCEEDED"
    assert followed == ["night-2026-11-25-2", "night-2026-11-25-3"]
    assert submit_and_wait(server, submission, lambda text: None, print) == Ended("night-2026-11-25-3", "SUCCEEDED", 0)
    with pytest.raises(HeldError, match="night-2026-11-25-3 is succeeded"):
        server.submit(submission)


class Server:
    """Ray's job server, as far as it tells where it is."""

    def __init__(self) -> None:
        outer = self
        self.was_asked = False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.was_asked = True
                content = json.dumps(
                    {"version": "4", "ray_version": ray.__version__} if "version" in self.path else []
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.mark.parametrize("variable", ["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
@pytest.mark.parametrize("is_typed", [True, False])
def test_what_was_typed_goes_before_the_environment(
    variable: str, is_typed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own client goes by the environment, whatever it is told: a job for one cluster would start on the other."""
    typed, other = Server(), Server()
    monkeypatch.setenv(variable, other.address)
    arguments = ["status", "--address", typed.address] if is_typed else ["status"]
    result = CliRunner().invoke(cli, arguments)
    goes_by_environment = not is_typed and variable == "RAY_API_SERVER_ADDRESS"
    assert (typed.was_asked, other.was_asked) == (is_typed, goes_by_environment)
    assert (result.exit_code == 0) == (is_typed or goes_by_environment)
    assert os.environ[variable] == other.address
    for server in (typed, other):
        server.http.shutdown()
        server.http.server_close()


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        (INFER, [], "http://env:1"),
        (INFER + "job: {address: 'http://spec:1'}\n", [], "http://spec:1"),
        (INFER + "job: {address: 'http://spec:1'}\n", ["--address", "http://flag:1"], "http://flag:1"),
    ],
)
def test_where_a_job_is_submitted(
    text: str, flags: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def server(address: str) -> None:
        asked.append(address)
        raise SettingError("far enough")

    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://env:1")
    monkeypatch.setattr("jobs.submit.server.JobServer", server)
    (tmp_path / "spec.yaml").write_text(text)
    CliRunner().invoke(cli, ["submit", str(tmp_path / "spec.yaml"), *flags])
    assert asked == [expected]


class Failing:
    """A job server that tells of a job, whose log it does not have: it never says a word of it, and answers 500 at the end."""

    def __init__(self) -> None:
        self.statuses = iter(["RUNNING", "RUNNING", 502, "RUNNING", "FAILED", "FAILED", "FAILED"])
        self._loop = asyncio.new_event_loop()
        app = web.Application()
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/jobs/", self._jobs)
        app.router.add_get("/api/jobs/night-1/logs", self._logs)
        app.router.add_get("/api/jobs/night-1/logs/tail", self._tail)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        host, port = self._runner.addresses[0][:2]
        self.address = f"http://{host}:{port}"
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__})

    async def _jobs(self, _: web.Request) -> web.Response:
        status = next(self.statuses)
        if isinstance(status, int):
            return web.Response(status=status, text="bad gateway")
        job = {"type": "SUBMISSION", "submission_id": "night-1", "status": status, "entrypoint": "python"}
        return web.json_response([job])

    async def _logs(self, _: web.Request) -> web.Response:
        return web.Response(status=500, text="Traceback: the agent is gone")

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await asyncio.sleep(3600)
        return socket


def test_a_server_that_says_nothing_of_a_job_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that can't bring its log has told how it ended: another attempt is to follow."""
    monkeypatch.setattr("jobs.submit.server.QUIET_S", 0.1)
    monkeypatch.setattr("jobs.submit.server.POLL_S", 0.01)
    shown: list[str] = []
    end = JobServer(Failing().address).follow("night-1", shown.append)
    assert (end, is_final(end)) == (Ended("night-1", "FAILED", 1), False)
    assert len(shown) == 1
    assert "night-1: the rest of its log can't be read: address " in shown[0]
    assert "the job server can't do it (Request failed with status code 500: Traceback: the agent is gone.)" in shown[0]


def test_a_cluster_without_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    details = JobDetails(
        type=JobType.SUBMISSION, submission_id="night-1", status=JobStatus.FAILED, driver_exit_code=127, entrypoint="python",
    )  # fmt: skip
    server = JobServer.__new__(JobServer)
    monkeypatch.setattr(server, "_patiently", lambda _: details)
    monkeypatch.setattr(server, "logs", lambda _: "sh: 1: python: not found\n")
    with pytest.raises(SettingError, match="night-1: the head node has no python on its PATH"):
        server.follow("night-1", lambda _: None)
