"""Rewrites beside a run and beside each other: no row is lost or doubled. On local disk, and on S3."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from pipeline.errors import SsdBatchError
from pipeline.table import rewrite as rewrite_module
from pipeline.table.delta import REWRITES, ResultTable
from pipeline.table.fence import Fence
from pipeline.table.query import query
from pipeline.table.rewrite import StaleError, data_files, rewrite, swap, unfenced
from pipeline.table.schema import SCHEMA

LARGE_BYTES = 10**9
NUM_BLOCKS, BLOCK_ROWS = 60, 5

RUN = Path(__file__).parent / "programs/append_and_retry.py"

CARE = Path(__file__).parent / "programs/maintain_on_request.py"


@pytest.fixture
def table(tmp_path, new_table, rows) -> ResultTable:
    """Three files of one partition."""
    table = new_table(tmp_path / "table")
    for uri in "bca":
        table.append(rows.table(rows.ok(uri, **rows.boxes((1, "cat", 0.5, 1, 2, 3, 4)))))
    return table


def uris(table: ResultTable) -> list[str]:
    with query(ResultTable(table.url), "SELECT uri FROM history ORDER BY 1") as relation:
        return [uri for (uri,) in relation.fetchall()]


def compact(table: ResultTable, files=None) -> int:
    return rewrite(table, files or data_files(table), unfenced(table), LARGE_BYTES)


def test_small_files_become_one_sorted_by_name(table):
    written = DeltaTable(table.url).to_pyarrow_table().select(SCHEMA.names).sort_by("uri")
    assert compact(table) == 1
    (file,) = data_files(table)
    assert (file.num_rows, file.run_date) == (3, "2026-01-02")
    found = DeltaTable(table.url).to_pyarrow_table().select(SCHEMA.names)
    assert found.to_pylist() == written.to_pylist()
    assert pq.ParquetFile(f"{table.url}/{file.path}").metadata.row_group(0).column(0).compression == "ZSTD"
    actions = pa.table(table.delta.get_add_actions(flatten=True)).to_pylist()
    assert [(action["min.uri"], action["max.uri"], action["null_count.uri"]) for action in actions] == [("a", "c", 0)]


def test_large_results_become_several_files(tmp_path, new_table, rows, monkeypatch):
    monkeypatch.setattr(rewrite_module, "BATCH_ROWS", 100)
    names = [f"{random.Random(number).getrandbits(256):064x}" for number in range(2000)]
    table = new_table(tmp_path / "table", *map(rows.ok, names))
    assert rewrite(table, data_files(table), unfenced(table), 30_000) == len(data_files(table)) > 1
    assert uris(table) == sorted(names)


def test_rows_of_some_images_are_left_out(table):
    deletion = Fence(table, "r1", 60)
    with deletion.held():
        assert rewrite(table, data_files(table), deletion.commit, LARGE_BYTES, pa.table({"uri": ["b", "x"]})) == 1
        assert uris(table) == ["a", "c"]
        assert rewrite(table, data_files(table), deletion.commit, LARGE_BYTES, pa.table({"uri": ["a", "c"]})) == 0
    assert (uris(table), data_files(table)) == ([], [])
    assert table.refreshed().transaction_version(REWRITES) == 2


def before_committing(table: ResultTable, other: Callable[[], object]) -> Callable:
    """Commit like `unfenced`; another is faster."""

    def commit(write) -> None:
        other()
        unfenced(table)(write)

    return commit


def test_of_two_that_replace_the_same_files_one_wins(table):
    stale = ResultTable(table.url)
    files = data_files(stale)
    with pytest.raises(StaleError):
        rewrite(stale, files, before_committing(stale, lambda: compact(table)), LARGE_BYTES)
    assert uris(table) == ["a", "b", "c"]


def test_delta_refuses_the_second_of_two_from_one_version(table):
    """What `StaleError` can't see: both saw the same files, and commit at the same time."""
    stale = ResultTable(table.url)
    files = data_files(stale)
    compact(table)
    with pytest.raises(CommitFailedError, match="transaction"):
        swap(stale, files, [], None, is_deletion=False)
    assert uris(table) == ["a", "b", "c"]


def test_a_retried_row_that_is_replaced_meanwhile_is_not_brought_back(table, rows):
    stale = ResultTable(table.url)
    files = data_files(stale)
    again = rows.table(rows.failed("a", "fetch", num_attempts=2))
    with pytest.raises(StaleError):
        rewrite(stale, files, before_committing(stale, lambda: table.replace(again)), LARGE_BYTES)
    with query(table, "SELECT uri, num_attempts FROM history ORDER BY 1") as relation:
        assert relation.fetchall() == [("a", 2), ("b", 1), ("c", 1)]


def test_a_retry_beside_a_compaction_is_refused_and_made_again(table, rows):
    fence = Fence(table, "r1", 60)
    tries = []

    def replace(properties) -> None:
        if not tries:
            compact(ResultTable(table.url))
        tries.append(properties)
        table.replace(rows.table(rows.failed("a", "fetch", num_attempts=2)), properties)

    with fence.held():
        fence.commit(replace)
    assert (len(tries), uris(table)) == (2, ["a", "b", "c"])


def test_rows_appended_meanwhile_stay(table, rows):
    other = ResultTable(table.url)
    commit = before_committing(table, lambda: other.append(rows.table(rows.ok("d"))))
    assert rewrite(table, data_files(table), commit, LARGE_BYTES) == 1
    other.append(rows.table(rows.ok("e")))  # from a version before the compaction
    assert uris(table) == ["a", "b", "c", "d", "e"]


def test_another_rewrite_elsewhere_costs_a_second_commit_only(table, rows):
    other = ResultTable(table.url)
    other.append(rows.table(rows.ok("d")))
    *mine, theirs = data_files(other)
    commit = before_committing(table, lambda: compact(other, [theirs]))
    assert rewrite(table, mine, commit, LARGE_BYTES) == 1
    assert uris(table) == ["a", "b", "c", "d"]


def test_a_commit_whose_answer_was_lost_is_not_made_twice(table):
    def commit(write) -> None:
        unfenced(table)(write)
        unfenced(table)(write)

    assert rewrite(table, data_files(table), commit, LARGE_BYTES) == 1
    assert uris(table) == ["a", "b", "c"]


def test_one_that_slept_for_days_does_not_commit(table, monkeypatch):
    monkeypatch.setattr(rewrite_module, "LONGEST_S", -1.0)
    with pytest.raises(StaleError):
        compact(table)
    assert len(data_files(table)) == 3


def test_files_that_vanish_while_they_are_read(table):
    """Erased beside a compaction: it gives way. Lost otherwise: an error."""
    files = data_files(ResultTable(table.url))
    compact(table)
    for file in files:
        os.remove(f"{table.url}/{file.path}")
    with pytest.raises(StaleError):
        compact(table, files)
    shutil.rmtree(f"{table.url}/run_date=2026-01-02")
    with pytest.raises(SsdBatchError, match="can't be rewritten"):
        compact(table)


def test_rows_that_are_not_written_are_not_removed(table, monkeypatch):
    monkeypatch.setattr(rewrite_module, "_adds", lambda _: [])
    with pytest.raises(SsdBatchError, match="of 3 rows 0 were written; nothing changed"):
        compact(table)
    assert uris(table) == ["a", "b", "c"]


def race(url: str, seed: int) -> None:
    """A run that appends and retries, and two who maintain, each of them stopped and woken now and then."""
    run = subprocess.Popen([sys.executable, RUN, url, str(NUM_BLOCKS), str(BLOCK_ROWS)])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    cares = [subprocess.Popen([sys.executable, CARE, url], **pipes) for _ in range(2)]
    assert [care.stdout.readline() for care in cares] == ["ready\n"] * 2
    delays = random.Random(seed)
    while run.poll() is None:
        for care in cares:
            care.stdin.write("go\n")
            care.stdin.flush()
        asleep = delays.choice(cares)
        time.sleep(delays.uniform(0, 0.2))
        os.kill(asleep.pid, signal.SIGSTOP)
        time.sleep(delays.uniform(0, 0.4))
        os.kill(asleep.pid, signal.SIGCONT)
        assert [care.stdout.readline() for care in cares] == ["done\n"] * 2
    for care in cares:
        care.communicate(timeout=240)
    assert [process.returncode for process in (run, *cares)] == [0, 0, 0]
    found = uris(ResultTable(url))
    assert len(found) == len(set(found)) == NUM_BLOCKS * BLOCK_ROWS
    with query(ResultTable(url), "SELECT count(*) FROM history WHERE status <> 'ok'") as relation:
        assert relation.fetchall() == [(0,)]


def test_a_run_and_two_who_maintain_on_local_disk(tmp_path, new_table):
    race(new_table(tmp_path / "table").url, seed=1)


@pytest.mark.s3
def test_a_run_and_two_who_maintain_on_s3(s3, new_table):
    race(new_table(f"s3://{s3.bucket()}/table").url, seed=2)
