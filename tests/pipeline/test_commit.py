import shutil
import threading
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pipeline import commit
from pipeline.commit import Committer
from pipeline.table import ResultTable

NEVER_S, AT_ONCE_S = 3600.0, 0.001
POLL_S = 0.01


@pytest.fixture
def table(tmp_path, new_table) -> ResultTable:
    return new_table(tmp_path / "table")


def uris(table: ResultTable) -> list[str]:
    return sorted(DeltaTable(table.url).to_pyarrow_table()["uri"].to_pylist())


def num_commits(table: ResultTable) -> int:
    """Beside the one that made the table."""
    return DeltaTable(table.url).version()


def wait_until(condition: Callable[[], bool]) -> None:
    """The test's own timeout ends this where it never comes."""
    while not condition():
        threading.Event().wait(POLL_S)


def test_rows_are_committed_together_at_the_end(table, rows):
    with Committer(table, NEVER_S) as committer:
        committer.put(rows.table(rows.ok("a")))
        committer.put(rows.table(rows.ok("b"), rows.ok("c")))
        assert num_commits(table) == 0
    assert (uris(table), num_commits(table)) == (["a", "b", "c"], 1)


def test_rows_are_committed_at_the_interval(table, rows):
    with Committer(table, AT_ONCE_S) as committer:
        for number, uri in enumerate(("a", "b"), start=1):
            committer.put(rows.table(rows.ok(uri)))
            wait_until(lambda number=number: num_commits(table) == number)
            assert len(uris(table)) == number
    assert num_commits(table) == 2


def test_nothing_to_commit_is_no_commit(table):
    with Committer(table, AT_ONCE_S):
        pass
    assert num_commits(table) == 0


def put_and_fail(table: ResultTable, block: pa.Table, before_the_end: Callable[[], object]) -> None:
    with Committer(table, NEVER_S) as committer:
        committer.put(block)
        before_the_end()


def fail() -> None:
    raise ZeroDivisionError


def test_finished_rows_are_committed_when_the_run_fails(table, rows):
    with pytest.raises(ZeroDivisionError):
        put_and_fail(table, rows.table(rows.ok("a")), fail)
    assert uris(table) == ["a"]


def test_a_commit_that_fails_at_the_end_is_raised(table, rows):
    with pytest.raises(DeltaError):
        put_and_fail(table, rows.table(rows.ok("a")), lambda: shutil.rmtree(table.url))


def test_the_runs_own_error_is_not_hidden_by_the_commits(table, rows):
    with pytest.raises(ZeroDivisionError):
        put_and_fail(table, rows.table(rows.ok("a")), lambda: (shutil.rmtree(table.url), fail()))


def test_a_commit_that_failed_is_raised_at_the_next_put(table, rows):
    def put_until_it_fails() -> None:
        while True:
            committer.put(rows.table(rows.ok("a")))
            threading.Event().wait(POLL_S)

    shutil.rmtree(table.url)
    with pytest.raises(DeltaError), Committer(table, AT_ONCE_S) as committer:
        put_until_it_fails()


def test_what_waits_is_bounded_in_bytes(table, rows, monkeypatch):
    """Half the space is committed before the interval ends; a put waits for it, and no row is lost."""
    block = rows.table(*(rows.ok(f"{number}") for number in range(10)))
    monkeypatch.setattr(commit, "MAX_QUEUED_BYTES", 2 * block.nbytes)
    with Committer(table, NEVER_S) as committer:
        for number in range(8):
            prefixed = pc.binary_join_element_wise(f"{number}-", block["uri"], "")
            committer.put(block.set_column(0, "uri", prefixed))
    assert len(set(uris(table))) == 80
    assert num_commits(table) > 1
