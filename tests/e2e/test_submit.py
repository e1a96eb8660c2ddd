"""Jobs on a Ray cluster of three nodes, as `ray start` makes it, through its job server."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.ray_nodes import RayNodes
from tests.conftest import wait_until
from tests.e2e.command import ask, jpeg, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
DAY = "2026-11-25"


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """The head without cores: all work is on nodes that may be killed. They were started in an environment of Python with all that
    is needed; our own code is what is shipped."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        nodes = RayNodes(Path(folder), os.environ | {"PATH": path}, head_cpus=0, has_job_server=True)
        nodes.add()
        nodes.add()
        yield nodes
        nodes.stop()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(nodes: RayNodes) -> Command:
    """A command of ours, with the cluster's token and address."""

    def command(*arguments: object, **variables: str) -> tuple[int, str, str]:
        environment = nodes.environment | {"RAY_API_SERVER_ADDRESS": nodes.job_server} | variables
        return run(*arguments, environment=environment)

    return command


@pytest.fixture
def spec(tmp_path: Path, model: Path, nodes: RayNodes) -> Callable[..., Path]:
    """A spec of a name for 120 pictures."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(120):
        (photos / f"{number}.jpg").write_bytes(jpeg(number))

    def spec(name: str, job: dict[str, Any] | None = None, **settings: object) -> Path:
        values = {
            "kind": "infer",
            "input": str(photos),
            "table": str(tmp_path / "table"),
            "model": str(model),
        } | settings
        shipped = {"address": nodes.job_server, "working_dir": str(REPOSITORY), "excludes": ["tests", "docs"]}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values | {"job": shipped | (job or {})}))
        return path

    return spec


def last_line(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def test_a_night(command: Command, spec: Callable[..., Path], nodes: RayNodes, tmp_path: Path) -> None:
    """Submitted, and refused while it runs. Stopped; the next attempt loses a node on the way, and is refused when it is done."""
    its_own = {"env_vars": {"AWS_REGION": "eu-north-1"}}  # which the run passes on to its workers, too
    nightly = spec("nightly", its_own, commit_interval_s=1, batch_size=1)
    code, out, err = command("submit", nightly, "--date", DAY, "--json")
    assert (code, last_line(out)) == (0, {"submission_id": f"nightly-{DAY}-1"}), err
    code, _, err = command("submit", nightly, "--date", DAY)
    assert code == 4, command("logs", f"nightly-{DAY}-1")
    assert f"nightly-{DAY}-1 is " in err
    code, out, err = command("stop", f"nightly-{DAY}-1", "--json")
    assert (code, last_line(out)["status"]) == (0, "STOPPED"), err

    code, out, err = command("submit", nightly, "--date", DAY, "--json")
    assert (code, last_line(out)) == (0, {"submission_id": f"nightly-{DAY}-2"}), err
    wait_until(lambda: any((tmp_path / "table").glob("run_date=*/*.parquet")), timeout_s=180)
    nodes.kill(nodes.nodes[0])
    nodes.add()
    code, out, err = command("logs", f"nightly-{DAY}-2", "--follow")
    assert code == 0, out + err
    counts = ask(
        tmp_path / "table", "SELECT count(*) AS n, count(DISTINCT uri) AS uris, min(run_date) AS day FROM images"
    )
    assert counts == [{"n": 120, "uris": 120, "day": DAY}]
    code, _, err = command("submit", nightly, "--date", DAY)
    assert code == 4
    assert f"nightly-{DAY}-2 is succeeded" in err
    code, _, err = command("submit", nightly, "--date", DAY, "--wait")
    assert (code, f"nightly-{DAY}-2 has succeeded already: nothing is submitted" in err) == (0, True), err

    code, out, _ = command("status", f"nightly-{DAY}-2", "--json")
    assert (code, last_line(out)["status"], last_line(out)["exit_code"]) == (0, "SUCCEEDED", 0)
    assert f"nightly-{DAY}-2  succeeded" in command("status")[1]


def test_a_wrong_setting_is_not_tried_again(command: Command, spec: Callable[..., Path]) -> None:
    wrong = spec("wrong", {"max_attempts": 3, "backoff_s": 0}, model="s3://no/such/../model")
    code, out, err = command("submit", wrong, "--date", DAY, "--wait", "--json")
    assert (code, last_line(out)) == (2, {"submission_id": f"wrong-{DAY}-1", "status": "FAILED", "exit_code": 2}), err


def test_what_fails_is_tried_again(command: Command, spec: Callable[..., Path], labelled: Any, tmp_path: Path) -> None:
    """An evaluation of an image that can't be read."""
    labelled.voc(tmp_path / "voc", split="test", a=labelled.thing("a", 1, 1, 9, 9))
    (tmp_path / "voc/JPEGImages/a.jpg").write_bytes(b"\xff\xd8")
    job = {"max_attempts": 2, "backoff_s": 0}
    path = spec("again", job)
    values = yaml.safe_load(path.read_text())
    path.write_text(
        yaml.safe_dump(
            {"kind": "evaluate", "data": str(tmp_path / "voc"), "model": values["model"], "job": values["job"]}
        )
    )
    code, out, err = command("submit", path, "--date", DAY, "--wait", "--json")
    assert (code, last_line(out)["submission_id"]) == (1, f"again-{DAY}-2"), err
    assert f"again-{DAY}-1 failed with exit code 1; the next attempt in 0 s" in err


def test_another_token_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("d" * 32)
    code, _, err = command("status", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert code == 2
    assert "the cluster asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here as there" in err


def test_a_job_that_nobody_knows(command: Command) -> None:
    code, _, err = command("logs", "nobody-1")
    assert code == 2
    assert "no job 'nobody-1'" in err
