"""Runs as processes of their own that race for one table; on local disk, and on S3."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline.errors import HeldError, OvertakenError
from pipeline.storage import store
from pipeline.table import fence as fence_module
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence, Holder, last_holder
from pipeline.table.query import query

SOON_S, LONG_S = 0.2, 1000.0
NO_PROCESS = 2**31 - 1

RUN = Path(__file__).parent / "programs/hold_and_commit.py"


class Run:
    """A run that commits one row after the other, and holds the table until it is asked for what it `believed`: those rows
    that it thinks are in the table."""

    def __init__(self, url: str, run_id: str, num_commits: int, interval_s: float = SOON_S, take_over: bool = False):
        command = [sys.executable, RUN, url, run_id, str(interval_s), str(num_commits), str(take_over)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def believed(self) -> list[str]:
        """All that is left of its output, at its end."""
        out, _ = self.process.communicate(timeout=240)
        return [line for line in out.split() if "-" in line]


@pytest.fixture(autouse=True)
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence_module, "SHORTEST_WATCH_S", 0)


@pytest.fixture
def table(tmp_path, new_table) -> ResultTable:
    return new_table(tmp_path / "table")


def uris(url: str) -> list[str]:
    with query(ResultTable(url), "SELECT uri FROM images ORDER BY 1") as relation:
        return [uri for (uri,) in relation.fetchall()]


def another(table: ResultTable, run_id: str = "r2", interval_s: float = SOON_S) -> Fence:
    return Fence(ResultTable(table.url), run_id, interval_s)


def commit_row(fence: Fence, table: ResultTable, rows, uri: str) -> None:
    fence.commit(lambda properties: table.append(rows.table(rows.ok(uri)), properties))


def test_a_table_is_held_and_released(table, rows):
    for number in (1, 2):
        fence = Fence(table, f"r{number}", LONG_S)
        with fence.held():
            commit_row(fence, table, rows, f"{number}")
    assert uris(table.url) == ["1", "2"]
    delta = DeltaTable(table.url)
    assert delta.transaction_version("ssd-batch") == (2 << 24) + 2
    last = json.loads(delta.history(1)[0]["ssd_batch"])
    assert (last["run_id"], last["pid"], last["is_released"]) == ("r2", os.getpid(), True)


def test_an_error_releases_too(table):
    with pytest.raises(ZeroDivisionError), Fence(table, "r1", LONG_S).held():
        raise ZeroDivisionError
    another(table).hold()


def test_a_holder_that_moves_is_named(table, monkeypatch):
    """It beats while it is watched."""
    holder = Fence(table, "r1", SOON_S)
    holder.hold()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(SOON_S / 4):
            holder.heartbeat()

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(HeldError, match=rf"held by run r1 \(host .*, process {os.getpid()}\), which is alive"):
        another(table).hold()
    ended.set()
    thread.join()
    holder.heartbeat()


def test_a_holder_that_stands_still_is_overtaken_and_stops(table, rows):
    first = Fence(table, "r1", SOON_S)
    first.hold()
    second = another(table)
    second.hold()
    commit_row(second, second._table, rows, "second")
    with pytest.raises(OvertakenError, match="taken over by run r2"):
        commit_row(first, table, rows, "first")
    with pytest.raises(OvertakenError):
        first.heartbeat()
    first.release()
    commit_row(second, second._table, rows, "third")
    assert uris(table.url) == ["second", "third"]


def test_a_holder_that_is_released_while_it_is_watched_is_followed(table):
    first = Fence(table, "r1", LONG_S)
    first.hold()
    threading.Timer(0.5, first.release).start()
    another(table).hold()


def test_a_process_that_is_gone_is_overtaken_at_once(table):
    run = Run(table.url, "r1", 1000, LONG_S)
    run.go()
    assert run.line() == "held"
    run.process.kill()
    believed = run.believed()
    another(table).hold()
    assert set(believed) <= set(uris(table.url))


@pytest.mark.parametrize(
    ("change", "is_gone"),
    [
        ({}, False),
        ({"pid_started": "1"}, True),  # its number is another's now
        ({"pid": NO_PROCESS}, True),
        ({"pid": NO_PROCESS, "host": "renamed"}, True),
        ({"pid": NO_PROCESS, "machine": "another boot"}, False),  # a clone, or a container, whose host has our name
        ({"pid": NO_PROCESS, "machine": "", "pid_started": ""}, False),  # as older versions wrote it
    ],
)
def test_a_holder_is_gone_when_its_process_would_be_seen_here(change, is_gone):
    assert replace(Holder.of_this_process("r1", SOON_S), **change).is_gone == is_gone


def test_where_it_is_not_linux_the_network_card_tells_machines_apart(monkeypatch):
    def no_proc(*arguments):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", no_proc)
    fence_module._machine.cache_clear()
    me = Holder.of_this_process("r1", SOON_S)
    assert (me.machine, me.pid_started) == (f"{uuid.getnode():x}", "")
    assert (me.is_gone, replace(me, pid=NO_PROCESS).is_gone) == (False, True)
    monkeypatch.undo()
    fence_module._machine.cache_clear()


def test_holders_of_other_versions_are_read():
    older = {"run_id": "r1", "host": "h", "pid": 1, "interval_s": 3.0, "is_released": True}
    assert Holder.from_json(json.dumps(older | {"cluster": "of a newer version"})) == Holder(**older)


def test_a_holder_is_watched_for_as_long_as_it_may_be_at_a_commit(table, monkeypatch):
    """Its next commit comes after five of its intervals."""
    monkeypatch.setattr(fence_module, "SHORTEST_WATCH_S", 60)
    holder = Fence(table, "r1", SOON_S)
    holder.hold()
    threading.Timer(5 * SOON_S, holder.heartbeat).start()
    with pytest.raises(HeldError, match="held by run r1"):
        another(table).hold()


def test_a_commit_to_s3_may_take_as_long_as_it_is_repeated():
    assert (store.table_patience_s("s3://bucket/table"), store.table_patience_s("/table")) == (180, 0)


def test_threads_commit_by_turns(table, rows):
    fence, num_commits = Fence(table, "r1", LONG_S), 10
    fence.hold()

    def commit(thread: int) -> None:
        for number in range(num_commits):
            commit_row(fence, table, rows, f"{thread}-{number}")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(commit, range(2)))
    assert len(uris(table.url)) == 2 * num_commits
    assert DeltaTable(table.url).transaction_version("ssd-batch") == (1 << 24) + 2 * num_commits


def test_take_over_asks_nobody(table):
    first = Fence(table, "r1", LONG_S)
    first.hold()
    another(table).hold(take_over=True)
    with pytest.raises(OvertakenError):
        first.heartbeat()


def race(place: str) -> None:
    """Of many one holds; what it believes committed is what the table holds."""
    runs = [Run(place, f"r{number}", 10, interval_s=30) for number in range(3)]
    for run in runs:
        run.go()
    while sum(run.process.poll() is None for run in runs) > 1:
        time.sleep(0.05)
    believed = [run.believed() for run in runs]
    codes = [run.process.returncode for run in runs]
    assert 0 in codes
    assert set(codes) <= {0, 4}  # One that was late finds the table released, and holds it, too.
    assert sorted(itertools.chain(*believed)) == uris(place)
    assert len(uris(place)) == 10 * codes.count(0)


def stop_and_wake(place: str) -> None:
    """SIGSTOP in the middle; another takes over; SIGCONT: the first commits no more."""
    first, second = Run(place, "r1", 10_000), Run(place, "r2", 5)
    first.go()
    believed = [first.line() for _ in range(4)][1:]
    os.kill(first.process.pid, signal.SIGSTOP)
    second.go()
    believed += second.believed()
    assert second.process.returncode == 0
    os.kill(first.process.pid, signal.SIGCONT)
    believed += first.believed()
    assert first.process.returncode == 5
    found = uris(place)
    assert len(found) == len(set(found))
    # A commit under way when it was stopped may have landed, its answer unread.
    assert set(believed) <= set(found)
    assert len(found) - len(believed) <= 1


@pytest.mark.parametrize("drivers", [race, stop_and_wake])
def test_drivers_on_local_disk(drivers, table):
    drivers(table.url)


@pytest.mark.s3
@pytest.mark.parametrize("drivers", [race, stop_and_wake])
def test_drivers_on_s3(drivers, s3, new_table):
    drivers(new_table(f"s3://{s3.bucket()}/table").url)


def test_a_commit_whose_answer_was_lost_is_not_made_twice(table, rows):
    fence = Fence(table, "r1", LONG_S)
    fence.hold()

    def commit_and_lose_the_answer(properties) -> None:
        block = rows.table(rows.ok("a"))
        stale = ResultTable(table.url)
        assert stale.exists
        assert stale.delta.version() >= 0
        table.append(block, properties)
        stale.append(block, properties)  # as a client does that tries again

    fence.commit(commit_and_lose_the_answer)
    commit_row(fence, table, rows, "b")
    assert uris(table.url) == ["a", "b"]


def test_a_hold_whose_answer_was_lost_is_held(table, monkeypatch, rows):
    fence = Fence(table, "r1", LONG_S)
    write = fence._write_nothing

    def write_and_lose_the_answer(properties) -> None:
        write(properties)
        raise fence_module.CommitFailedError("concurrent transaction")

    with monkeypatch.context() as lossy:
        lossy.setattr(fence, "_write_nothing", write_and_lose_the_answer)
        fence.hold()
    commit_row(fence, table, rows, "a")
    assert uris(table.url) == ["a"]


def test_commits_of_others_do_not_hide_the_holder(table, rows):
    first = Fence(table, "r1", LONG_S)
    first.hold()
    table.append(rows.table(rows.ok("by hand")))
    another(table).hold(take_over=True)
    table.append(rows.table(rows.ok("by hand too")))
    with pytest.raises(OvertakenError, match="taken over by run r2"):
        first.heartbeat()


def test_who_saw_the_table_free_too_late_does_not_get_it(table, monkeypatch):
    """Between seeing and taking, another takes it."""
    late, early = another(table, "late"), another(table, "early")
    see = late.wait_until_free

    def see_and_dream(take_over: bool) -> int | None:
        free = see(take_over)
        early.hold()
        return free

    monkeypatch.setattr(late, "wait_until_free", see_and_dream)
    with pytest.raises(HeldError, match="just taken by run early"):
        late.hold()
    early.heartbeat()


def test_a_holder_that_commits_while_it_is_overtaken_is_overtaken(table, monkeypatch):
    """Between the look at the table and the commit that takes it. Whoever takes it in that time has it."""
    alive, late = Fence(table, "alive", LONG_S), another(table)
    alive.hold()
    see, commits = late.wait_until_free, [alive.heartbeat, alive.heartbeat]

    def see_and_dream(take_over: bool) -> int | None:
        free = see(take_over)
        if commits:
            commits.pop()()
        return free

    monkeypatch.setattr(late, "wait_until_free", see_and_dream)
    late.hold(take_over=True)
    assert not commits
    late.heartbeat()
    with pytest.raises(OvertakenError):
        alive.heartbeat()
    commits.append(lambda: another(table, "r3").hold(take_over=True))
    with pytest.raises(HeldError, match="was just taken by run"):
        late.hold(take_over=True)


def test_a_conflict_that_does_not_end_is_raised(table, monkeypatch):
    monkeypatch.setattr(fence_module, "COMMIT_ATTEMPTS", 2)
    fence = Fence(table, "r1", LONG_S)
    fence.hold()
    tries = []

    def refused(properties) -> None:
        tries.append(properties)
        raise fence_module.CommitFailedError("no")

    with pytest.raises(fence_module.CommitFailedError):
        fence.commit(refused)
    assert len(tries) == 2
    fence.heartbeat()


@pytest.mark.parametrize("name", ["what?", "a#b", "é 図", "a&c=d"])
def test_a_hold_is_known_whatever_the_folders_name(name, tmp_path):
    """delta-rs gives no history of some: each run waited to see whether a released one was alive."""
    table = ResultTable(str(tmp_path / name / "table"))
    table.create()
    with Fence(table, "r1", 60).held():
        holder = last_holder(ResultTable(table.url))
        assert (holder.run_id, holder.is_released) == ("r1", False)
    assert last_holder(ResultTable(table.url)).is_released
