"""Signals to a run in the middle of its work: what is finished is committed, and the next run does the rest."""

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.appended_code import appended
from tests.chaos.processes import SERVER, below, kill, kill_tree, wait_until_gone
from tests.conftest import wait_until
from tests.e2e.command import TIMEOUT_S, ask, infer, jpeg, start

pytestmark = pytest.mark.slow

NUM_IMAGES = 80
SLOW = """
import time

decode_at_once = decode_stored


def decode_stored(data, *limits):
    if b"TAKE YOUR TIME" in data:
        time.sleep(600)
    return decode_at_once(data, *limits)
"""


NO_THUMBNAIL = """
import time
from pathlib import Path


def thumbnail(uri, *_):
    Path(uri).parents[1].joinpath("asked").touch()
    time.sleep(600)
"""
SWALLOWING = """
import time

update_at_once = Progress.update


def update(self, done, failed):
    update_at_once(self, done, failed)
    try:
        time.sleep(5)
    except KeyboardInterrupt:
        pass


Progress.update = update
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(NUM_IMAGES - 1):
        (folder / f"{index}.jpg").write_bytes(jpeg())
    (folder / "slow.jpg").write_bytes(jpeg() + b"TAKE YOUR TIME")
    return folder


def wait_for_results(run: "subprocess.Popen[str]") -> str:
    """What it tells until its progress shows some images done."""
    assert run.stderr is not None
    told = ""
    for line in run.stderr:
        told += line
        if num_done(line):
            return told
    raise AssertionError(told)


def num_done(told: str) -> int:
    """As the last line of progress says."""
    lines = re.findall(rf"^(\d+) of {NUM_IMAGES} images", told, re.MULTILINE)
    return int(lines[-1]) if lines else 0


@pytest.mark.parametrize(
    ("send", "number", "exit_code", "address"),
    [
        (os.kill, signal.SIGTERM, 143, "local-ray"),
        (os.killpg, signal.SIGINT, 130, "local"),
    ],
    ids=["as Ray's jobs stop", "as Ctrl-C"],
)
def test_a_signal_commits_what_is_finished(
    send: Callable[[int, int], None],
    number: signal.Signals,
    exit_code: int,
    address: str,
    pictures: Path,
    model: Path,
    tmp_path: Path,
) -> None:
    """The interval is an hour: before the signal nothing is committed. Metrics carry the table's name, which is odd."""
    table = tmp_path / "é ?" / "table"
    arguments = (
        "--input",
        pictures,
        "--table",
        table,
        "--model",
        model,
        "--price-per-node-hour",
        3600,
        "--address",
        address,
    )
    stopped = start(
        "infer", *arguments, "--commit-interval-s", 3600, environment=appended({"pipeline.images.decode": SLOW})
    )
    try:
        told = wait_for_results(stopped)
        started = below(stopped.pid)
        assert not list(table.glob("run_date=*"))
        send(stopped.pid, number)
        assert stopped.stdout is not None
        assert stopped.stderr is not None
        with stopped:
            rest, out = stopped.stderr.read(), stopped.stdout.read()
    finally:
        kill_tree(stopped.pid)
    assert (stopped.returncode, out) == (exit_code, ""), told + rest
    assert rest.splitlines()[-1] == f"Error: stopped by {number.name}; run again for what is left"
    assert "Traceback" not in rest
    assert not wait_until_gone(started, seconds=TIMEOUT_S)

    (committed,) = ask(table, "SELECT count(*) AS n FROM images")
    assert 0 < num_done(told) <= committed["n"] == num_done(told + rest) < NUM_IMAGES
    (record,) = ask(table, "SELECT outcome, planned, ok, cost > start_up_s AS has_cost FROM runs")
    assert record == {"outcome": "stopped", "planned": NUM_IMAGES, "ok": None, "has_cost": True}
    rest_of_it = infer(*arguments, "--address", "local")
    assert [rest_of_it[name] for name in ("already_done", "ok")] == [committed["n"], NUM_IMAGES - committed["n"]]


def test_a_signal_whose_interrupt_is_lost_ends_the_run_with_its_next_rows(
    pictures: Path, model: Path, tmp_path: Path
) -> None:
    """Python throws away what is raised while it collects garbage, say; the committer has been told all the same."""
    table = tmp_path / "table"
    code = appended({"pipeline.images.decode": SLOW, "pipeline.progress": SWALLOWING})
    run = start("infer", "--input", pictures, "--table", table, "--model", model, environment=code)
    try:
        wait_for_results(run)
        os.kill(run.pid, signal.SIGTERM)
        out, err = run.communicate(timeout=TIMEOUT_S)
    finally:
        kill_tree(run.pid)
    assert (run.returncode, out) == (143, ""), err
    (committed,) = ask(table, "SELECT count(*) AS n FROM images")
    assert 0 < committed["n"] < NUM_IMAGES


def test_a_signal_to_all_while_processes_start(pictures: Path, model: Path, tmp_path: Path) -> None:
    """As systemd stops. The server that forks them is amid its imports: it leaves it to the driver to end, and tells nothing of its own."""
    run = start("infer", "--input", pictures, "--table", tmp_path / "table", "--model", model)
    try:
        wait_until(lambda: any(_is_importing(pid) for pid, name in below(run.pid).items() if SERVER in name))
        started = below(run.pid)
        os.killpg(run.pid, signal.SIGTERM)
        out, err = run.communicate(timeout=TIMEOUT_S)
    finally:
        kill_tree(run.pid)
    assert (run.returncode, out) == (143, ""), err
    assert err.splitlines()[-1] == "Error: stopped by SIGTERM; run again for what is left"
    assert "Traceback" not in err
    assert not wait_until_gone(started, seconds=TIMEOUT_S)


def test_processes_end_with_a_driver_that_is_killed_alone(pictures: Path, model: Path, tmp_path: Path) -> None:
    """One of them sleeps in its work for longer than anybody waits."""
    arguments = ("--input", pictures, "--table", tmp_path / "table", "--model", model)
    killed = start("infer", *arguments, environment=appended({"pipeline.images.decode": SLOW}))
    started: dict[int, str] = {}
    try:
        with killed:
            wait_for_results(killed)
            started = below(killed.pid)
            killed.kill()
        assert any(SERVER in name for name in started.values())
        assert not wait_until_gone(started, seconds=TIMEOUT_S)
    finally:
        kill(*started)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_explorer_ends_amid_an_answer(number: signal.Signals, model: Path, tmp_path: Path) -> None:
    """Whose picture takes longer than anybody waits: nothing is told of what is cut off."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/0.jpg").write_bytes(jpeg(0))
    infer("--input", tmp_path / "pictures", "--table", tmp_path / "table", "--model", model)
    arguments = ("--table", tmp_path / "table", "--port", 0, "--cache", tmp_path / "cache", "--json")
    explorer = start("explore", *arguments, environment=appended({"pipeline.explore.thumbnails": NO_THUMBNAIL}))
    with explorer:
        try:
            assert explorer.stdout
            url = urlsplit(json.loads(explorer.stdout.readline())["url"])
            with ExitStack() as stack:
                asked, other = (
                    stack.enter_context(closing(http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_S)))
                    for _ in range(2)
                )
                other.request("GET", "/api/images")
                (image,) = json.load(other.getresponse())
                asked.request("GET", f"/thumbnail/{image['key']}")
                wait_until((tmp_path / "asked").exists)
                os.killpg(explorer.pid, number)
                _, err = explorer.communicate(timeout=TIMEOUT_S)
        finally:
            kill_tree(explorer.pid)
    assert explorer.returncode == 0
    assert not re.search("Traceback|Exception|Error", err), err


@pytest.mark.s3
def test_an_explorer_ends_quietly_after_a_picture_of_a_store(s3, model: Path, tmp_path: Path) -> None:
    bucket = s3.bucket()
    s3.put(bucket, {"0.jpg": jpeg(0)})
    infer("--input", f"s3://{bucket}", "--table", tmp_path / "table", "--model", model)
    arguments = ("--table", tmp_path / "table", "--port", 0, "--cache", tmp_path / "cache", "--json")
    with start("explore", *arguments) as explorer:
        try:
            assert explorer.stdout
            url = json.loads(explorer.stdout.readline())["url"]
            with urlopen(f"{url}api/images") as answer:
                (image,) = json.load(answer)
            with urlopen(f"{url}thumbnail/{image['key']}") as answer:
                assert answer.headers["Content-Type"] == "image/jpeg"
            os.killpg(explorer.pid, signal.SIGINT)
            _, err = explorer.communicate(timeout=TIMEOUT_S)
        finally:
            kill_tree(explorer.pid)
    assert explorer.returncode == 0
    assert re.fullmatch("copying table .*\n", err)


def _is_importing(pid: int) -> bool:
    """Has it more memory than Python alone, and less than with all of torch?"""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > 60 * 2**20
    except (FileNotFoundError, ProcessLookupError):
        return False
