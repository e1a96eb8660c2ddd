from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from pipeline.errors import ReconciliationError
from pipeline.manifest import LISTING
from pipeline.plan import Plan, Tally, make_plan, reconcile, tally
from pipeline.table import ResultTable


@pytest.fixture
def count(tmp_path):
    """The tally of a listing, for the model m1: of a plan that has written its work, or of one with none."""

    def count(listing, table, plan=None) -> Tally:
        work = tmp_path / "work's.parquet"
        if plan is None:
            pq.write_table(LISTING.empty_table(), work)
        return tally(plan or Plan(0, 0, 0, 0), listing, work, table, "m1")

    return count


@pytest.fixture
def plan(tmp_path):
    """Plan a listing for the model m1, three attempts; the counts, and the work as (uri, etag, num_attempts)."""

    def plan(listing, table, digest="m1", max_attempts=3, **more) -> tuple[Plan, list[tuple]]:
        path = tmp_path / "work's.parquet"
        counts = make_plan(listing, table, digest, max_attempts, path, **more)
        work = pq.read_table(path)
        assert work.column_names == ["uri", "etag", "size_bytes", "last_modified", "num_attempts"]
        return counts, sorted(tuple(row.values()) for row in work.select(["uri", "etag", "num_attempts"]).to_pylist())

    return plan


def test_without_a_table_all_is_planned(tmp_path, listing, plan):
    table = ResultTable(str(tmp_path / "table"))
    counts, work = plan(listing(("a", "v1"), ("b", "v1")), table)
    assert counts == Plan(listed=2, already_ok=0, already_failed=0, planned=2, planned_bytes=20)
    assert work == [("a", "v1", 1), ("b", "v1", 1)]
    assert not (tmp_path / "table").exists()


def test_bytes_are_known_when_all_are(tmp_path, listing, plan):
    path, table = listing(("a", "v1"), ("b", "v1")), ResultTable(str(tmp_path / "table"))
    sizes = pq.read_table(path)
    pq.write_table(sizes.set_column(2, LISTING.field("size_bytes"), [[5_000_000_000, 1]]), path)
    assert plan(path, table)[0].planned_bytes == 5_000_000_001
    pq.write_table(sizes.set_column(2, LISTING.field("size_bytes"), [[5_000_000_000, None]]), path)
    assert plan(path, table)[0].planned_bytes is None
    assert plan(listing(), table)[0].planned_bytes == 0


def test_an_empty_table_is_as_good_as_none(tmp_path, listing, plan, new_table):
    counts, work = plan(listing(("a", "v1")), new_table(tmp_path / "table"))
    assert (counts.planned, work) == (1, [("a", "v1", 1)])


def test_what_is_done_is_not_planned(tmp_path, listing, plan, new_table, rows):
    table = new_table(
        tmp_path / "table", rows.ok("a"), rows.ok("changed"), rows.ok("other", model_digest="m2"), rows.ok("x")
    )
    counts, work = plan(listing(("a", "v1"), ("changed", "v2"), ("other", "v1"), ("new", "v1")), table)
    assert counts == Plan(listed=4, already_ok=1, already_failed=0, planned=3, planned_bytes=30)
    assert work == [("changed", "v2", 1), ("new", "v1", 1), ("other", "v1", 1)]
    counts, work = plan(listing(("a", "v1")), table)
    assert (counts.already_done, work) == (1, [])


def test_failures_are_held_or_tried_again(tmp_path, listing, plan, new_table, rows):
    table = new_table(
        tmp_path / "table",
        rows.failed("broken", "decode"),
        rows.failed("once", "fetch"),
        rows.failed("twice", "detect", num_attempts=2),
        rows.failed("thrice", "fetch", num_attempts=3),
    )
    keys = listing(*((name, "v1") for name in ("broken", "once", "twice", "thrice")))
    counts, work = plan(keys, table)
    assert counts == Plan(listed=4, already_ok=0, already_failed=2, planned=2, planned_bytes=20)
    assert work == [("once", "v1", 2), ("twice", "v1", 3)]
    assert plan(keys, table, max_attempts=1)[0].planned == 0
    assert plan(keys, table, max_attempts=4)[1][1] == ("thrice", "v1", 4)


def test_failures_of_a_stage_are_planned_again_when_asked_for(tmp_path, listing, plan, new_table, rows):
    table = new_table(
        tmp_path / "table",
        rows.ok("fine"),
        rows.failed("broken", "decode"),
        rows.failed("thrice", "fetch", num_attempts=3),
        rows.failed("once", "fetch"),
    )
    keys = listing(*((name, "v1") for name in ("fine", "broken", "thrice", "once")))
    assert plan(keys, table, retried_stages=("fetch", "decode", "detect")) == (
        Plan(listed=4, already_ok=1, already_failed=0, planned=3, planned_bytes=30),
        [("broken", "v1", 2), ("once", "v1", 2), ("thrice", "v1", 4)],
    )
    assert plan(keys, table, retried_stages=("decode",)) == (
        Plan(listed=4, already_ok=1, already_failed=1, planned=2, planned_bytes=20),
        [("broken", "v1", 2), ("once", "v1", 2)],
    )


def test_attempts_count_up_until_they_are_used_up(tmp_path, listing, plan, count, new_table, rows):
    table, keys = new_table(tmp_path / "table"), listing(("gone", ""))
    for attempt in (1, 2, 3):
        counts, work = plan(keys, table)
        assert (counts.planned, work) == (1, [("gone", "", attempt)])
        table.replace(rows.table(rows.failed("gone", "fetch", etag="", num_attempts=attempt)))
    assert plan(keys, table) == (Plan(listed=1, already_ok=0, already_failed=1, planned=0, planned_bytes=0), [])
    assert count(keys, table) == Tally(ok=0, failed=1, missing=0, doubled=0)


def test_of_what_is_vouched_for_only_failures_are_looked_at(tmp_path, listing, plan, count, new_table, rows):
    """The mark is noon: the table lacks two keys of the morning, which is not seen, but for the upload in parts."""
    morning, noon, evening = (datetime(2026, 1, 2, hour, tzinfo=UTC) for hour in (9, 12, 18))
    table = new_table(
        tmp_path / "table",
        rows.ok("done"),
        rows.failed("broken", "decode"),
        rows.failed("gone", "fetch"),
        rows.ok("at noon"),
        rows.ok("of another model", model_digest="m2"),
    )
    keys = listing(
        ("done", "v1", morning),
        ("broken", "v1", morning),
        ("gone", "v1", morning),
        ("of another model", "v1", morning),
        ("not looked up", "v1", morning),
        ("in parts", "v1-3", morning),
        ("at noon", "v1", noon),
        ("new", "v1", evening),
        ("of no time", "v1"),
    )
    counts, work = plan(keys, table, vouched_before=noon)
    assert counts == Plan(
        listed=9, already_ok=1, already_failed=0, planned=4, vouched=4, vouched_before=noon, planned_bytes=40
    )
    assert counts.already_done == 5
    assert work == [("gone", "v1", 2), ("in parts", "v1-3", 1), ("new", "v1", 1), ("of no time", "v1", 1)]
    assert count(keys, table, counts) == Tally(ok=1, failed=1, missing=3, doubled=0)
    assert plan(keys, table, vouched_before=noon, retried_stages=("decode",))[1][0] == ("broken", "v1", 2)
    assert plan(keys, table)[0] == Plan(listed=9, already_ok=2, already_failed=1, planned=6, planned_bytes=60)


def test_keys_are_text_as_it_is(tmp_path, listing, plan, new_table, rows):
    odd = ["quote's", 'double"', "A", "a", "e\u0301", "\u00e9", "tab\t", " a", "图像", "%41", "a;b"]
    table = new_table(tmp_path / "table", *(rows.ok(uri) for uri in odd))
    counts, work = plan(listing(*((uri, "v1") for uri in odd), ("%42", "v1")), table)
    assert (counts.already_ok, work) == (len(odd), [("%42", "v1", 1)])


def test_the_tally_counts_a_listings_keys_in_the_table(tmp_path, listing, count, new_table, rows):
    table = new_table(
        tmp_path / "table",
        rows.ok("a"),
        rows.failed("b", "decode"),
        rows.ok("not listed"),
        rows.ok("other", model_digest="m2"),
    )
    keys = listing(("a", "v1"), ("b", "v1"), ("a", "v2"), ("other", "v1"))
    assert count(keys, table) == Tally(ok=1, failed=1, missing=2, doubled=0)
    table.append(rows.table(rows.ok("a"), rows.ok("a")))
    assert count(keys, table) == Tally(ok=3, failed=1, missing=2, doubled=2)


def test_the_tally_of_no_table_misses_all(tmp_path, listing, count):
    assert count(listing(("a", "v1")), ResultTable(str(tmp_path / "table"))) == Tally(0, 0, missing=1, doubled=0)


def test_a_run_is_held_against_the_table(tmp_path, listing, count, new_table, rows):
    """Of three images one was done before; the run says that it did one ok and one failed."""
    plan = Plan(listed=3, already_ok=1, already_failed=0, planned=2)
    wrote = [rows.ok("a"), rows.ok("b"), rows.failed("c", "decode")]
    keys = listing(("a", "v1"), ("b", "v1"), ("c", "v1"))
    table = new_table(tmp_path / "table", *wrote)
    reconcile(plan, 1, 1, count(keys, table))

    with pytest.raises(ReconciliationError, match="ok=2, failed=1"):
        reconcile(plan, 2, 0, count(keys, table))
    lost = new_table(tmp_path / "lost", *wrote[:2])
    with pytest.raises(ReconciliationError, match="missing=1"):
        reconcile(plan, 1, 1, count(keys, lost))
    table.append(rows.table(rows.ok("b")))
    with pytest.raises(ReconciliationError, match="doubled=1"):
        reconcile(plan, 1, 1, count(keys, table))
