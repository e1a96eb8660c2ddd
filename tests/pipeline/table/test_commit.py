import json
import shutil
import threading
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipeline.errors import OvertakenError
from pipeline.table import commit
from pipeline.table.commit import Committer
from pipeline.table.delta import ResultTable
from pipeline.table.fence import Fence
from pipeline.table.schema import IS_RETRY, SCHEMA

NEVER_S, AT_ONCE_S = 3600.0, 0.001
POLL_S = 0.01


@pytest.fixture
def table(tmp_path, new_table) -> ResultTable:
    return new_table(tmp_path / "table")


@pytest.fixture
def committer(table) -> Callable[[float], Committer]:
    """Make a committer of a run that holds the table."""

    def committer(interval_s: float) -> Committer:
        fence = Fence(table, "r1", interval_s)
        fence.hold(take_over=True)
        return Committer(table, fence, interval_s)

    return committer


def results(*rows: dict[str, object]) -> pa.Table:
    """Rows as they reach the committer: those that were tried before replace their old row."""
    is_retry = pa.array([row["num_attempts"] > 1 for row in rows])
    return pa.Table.from_pylist(list(rows), schema=SCHEMA).append_column(IS_RETRY, is_retry)


def uris(table: ResultTable) -> list[str]:
    return sorted(DeltaTable(table.url).to_pyarrow_table()["uri"].to_pylist())


def num_commits(table: ResultTable) -> int:
    """Beside those that made and took the table."""
    return DeltaTable(table.url).version() - 1


def wait_until(condition: Callable[[], bool]) -> None:
    """The test's own timeout ends this where it never comes."""
    while not condition():
        threading.Event().wait(POLL_S)


def test_rows_are_committed_together_at_the_end(table, committer, rows):
    with committer(NEVER_S) as running:
        running.put(results(rows.ok("a")))
        running.put(results(rows.ok("b"), rows.ok("c")))
        assert num_commits(table) == 0
    assert (uris(table), num_commits(table)) == (["a", "b", "c"], 1)


def test_rows_are_committed_at_the_interval(table, committer, rows):
    with committer(AT_ONCE_S) as running:
        for number, uri in enumerate(("a", "b"), start=1):
            running.put(results(rows.ok(uri)))
            wait_until(lambda number=number: len(uris(table)) == number)


def test_an_interval_without_rows_is_a_heartbeat(table, committer):
    with committer(AT_ONCE_S):
        wait_until(lambda: num_commits(table) >= 3)
    with committer(NEVER_S):
        before = num_commits(table)
    assert (uris(table), num_commits(table)) == ([], before)


def test_rows_tried_before_replace_their_old_row(table, committer, rows):
    with committer(NEVER_S) as running:
        running.put(results(rows.failed("again", "fetch"), rows.ok("new")))
    with committer(NEVER_S) as running:
        running.put(results(rows.ok("again", num_attempts=2), rows.ok("newer")))
    assert uris(table) == ["again", "new", "newer"]


def test_where_rows_replace_others_slowly_they_are_gathered(table, committer, rows, monkeypatch):
    """The first are committed at once; the next wait until a tenth of the time is spent on it, here never; the last come at the end."""
    replaced = []
    replace = ResultTable.replace
    monkeypatch.setattr(commit, "REPLACING_SHARE", 1e-9)
    monkeypatch.setattr(
        ResultTable, "replace", lambda table, rows, more: (replaced.append(rows.num_rows), replace(table, rows, more))
    )
    retried = [rows.ok(uri, num_attempts=2) for uri in "abcd"]
    with committer(AT_ONCE_S) as running:
        running.put(results(retried[0]))
        wait_until(lambda: replaced == [1])
        for row in retried[1:]:
            running.put(results(row))
        running.put(results(rows.ok("new")))
        wait_until(lambda: "new" in uris(table))
        assert replaced == [1]
    assert (replaced, uris(table)) == ([1, 3], ["a", "b", "c", "d", "new"])


def test_rows_that_wait_to_replace_others_are_bounded_in_bytes(table, committer, rows, monkeypatch):
    block = results(*(rows.ok(f"{number}", num_attempts=2) for number in range(10)))
    monkeypatch.setattr(commit, "REPLACING_SHARE", 1e-9)
    monkeypatch.setattr(commit, "MAX_QUEUED_BYTES", 4 * block.nbytes)
    with committer(NEVER_S) as running:
        for number in range(12):
            prefixed = pc.binary_join_element_wise(f"{number}-", block["uri"], "")
            running.put(block.set_column(0, "uri", prefixed))
        wait_until(lambda: len(uris(table)) >= 60)
    assert len(set(uris(table))) == 120


def test_a_run_says_so_before_it_commits_for_long(table, committer, rows, monkeypatch):
    """Who watches it meanwhile must not take it for dead."""
    table.append(results(*(rows.ok(f"{number}") for number in range(10))))
    monkeypatch.setattr(commit, "REPLACING_S_PER_ROW", NEVER_S)
    promised = []

    def replace(table, rows, more):
        promised.append(json.loads(DeltaTable(table.url).history(1)[0]["ssd_batch"])["interval_s"])

    monkeypatch.setattr(ResultTable, "replace", replace)
    with committer(NEVER_S) as running:
        running.put(results(rows.ok("a", num_attempts=2)))
    assert promised == [10 * NEVER_S]


def test_a_run_that_was_overtaken_commits_nothing(table, committer, rows):
    other = Fence(ResultTable(table.url), "r2", NEVER_S)
    with pytest.raises(OvertakenError, match="run r2 "):
        put_and_fail(committer, results(rows.ok("a")), lambda: other.hold(take_over=True))
    assert uris(table) == []


def put_and_fail(
    committer: Callable[[float], Committer], block: pa.Table, before_the_end: Callable[[], object]
) -> None:
    with committer(NEVER_S) as running:
        running.put(block)
        before_the_end()


def fail() -> None:
    raise ZeroDivisionError


def test_finished_rows_are_committed_when_the_run_fails(table, committer, rows):
    with pytest.raises(ZeroDivisionError):
        put_and_fail(committer, results(rows.ok("a")), fail)
    assert uris(table) == ["a"]


def test_a_commit_that_fails_at_the_end_is_raised(table, committer, rows):
    with pytest.raises(DeltaError):
        put_and_fail(committer, results(rows.ok("a")), lambda: shutil.rmtree(table.url))


def test_the_runs_own_error_is_not_hidden_by_the_commits(table, committer, rows):
    with pytest.raises(ZeroDivisionError):
        put_and_fail(committer, results(rows.ok("a")), lambda: (shutil.rmtree(table.url), fail()))


def test_a_commit_that_failed_is_raised_at_the_next_put(table, committer, rows):
    def put_until_it_fails() -> None:
        while True:
            running.put(results(rows.ok("a")))
            threading.Event().wait(POLL_S)

    shutil.rmtree(table.url)
    with pytest.raises(DeltaError), committer(AT_ONCE_S) as running:
        put_until_it_fails()


def test_what_waits_is_bounded_in_bytes(table, committer, rows, monkeypatch):
    """Half the space is committed before the interval ends; a put waits for it, and no row is lost."""
    block = results(*(rows.ok(f"{number}") for number in range(10)))
    monkeypatch.setattr(commit, "MAX_QUEUED_BYTES", 2 * block.nbytes)
    with committer(NEVER_S) as running:
        for number in range(8):
            prefixed = pc.binary_join_element_wise(f"{number}-", block["uri"], "")
            running.put(block.set_column(0, "uri", prefixed))
    assert len(set(uris(table))) == 80
    assert num_commits(table) > 1


def stop_and_put(committer: Callable[[float], Committer], block: pa.Table, uris_then: Callable[[], bool]) -> None:
    with committer(NEVER_S) as running:
        running.put(block)
        running.stop()
        wait_until(uris_then)
        running.put(block)


def test_a_committer_that_is_stopped_commits_at_once_and_takes_no_more(table, committer, rows):
    with pytest.raises(KeyboardInterrupt):
        stop_and_put(committer, results(rows.ok("a")), lambda: uris(table) == ["a"])
    assert uris(table) == ["a"]


def test_the_time_that_commits_take_is_counted(committer, rows):
    with committer(NEVER_S) as running:
        assert running.commit_s == 0.0
        running.put(results(rows.ok("a")))
    assert running.commit_s > 0.0


def test_each_commit_tells_what_it_took(table, rows):
    told: list[float] = []
    fence = Fence(table, "r1", NEVER_S)
    fence.hold()
    with Committer(table, fence, NEVER_S, told.append) as running:
        running.put(results(rows.ok("a")))
    assert [running.commit_s] == told
