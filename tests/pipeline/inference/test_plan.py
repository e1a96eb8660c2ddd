from datetime import UTC, date, datetime

import pyarrow.parquet as pq
import pytest

from pipeline.errors import ReconciliationError
from pipeline.inference.plan import Plan, Tally, make_plan, reconcile, tally
from pipeline.inputs.manifest import LISTING
from pipeline.stages.rows import IS_FIRST
from pipeline.table.delta import ResultTable
from pipeline.table.schema import IS_RETRY

RUN = "20260103T020000Z-1"
"""Of the day after that of the rows."""


@pytest.fixture
def count(tmp_path):
    """The tally of a listing, for the model m1."""

    def count(listing, table) -> Tally:
        return tally(listing, table, "m1")

    return count


@pytest.fixture
def plan(tmp_path):
    """Plan a listing for the model m1, three attempts; the counts, and the work as (uri, etag, num_attempts)."""

    def plan(listing, table, digest="m1", max_attempts=3, run_id=RUN, **more) -> tuple[Plan, list[tuple]]:
        path = tmp_path / "work's.parquet"
        counts = make_plan(listing, table, digest, run_id, max_attempts, path, **more)
        work = pq.read_table(path)
        assert work.column_names == ["uri", "etag", "size_bytes", "last_modified", "num_attempts", IS_RETRY, IS_FIRST]
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


OWN = {"error_type": "ChangedError"}


def test_failures_are_held_or_tried_again(tmp_path, listing, plan, new_table, rows):
    table = new_table(
        tmp_path / "table",
        rows.failed("broken", "decode"),
        rows.failed("once", "fetch", **OWN),
        rows.failed("twice", "detect", num_attempts=2, error_type="OutputError"),
        rows.failed("thrice", "fetch", num_attempts=3, **OWN),
    )
    keys = listing(*((name, "v1") for name in ("broken", "once", "twice", "thrice")))
    counts, work = plan(keys, table)
    assert counts == Plan(listed=4, already_ok=0, already_failed=2, planned=2, planned_bytes=20)
    assert work == [("once", "v1", 2), ("twice", "v1", 3)]
    assert plan(keys, table, max_attempts=1)[0].planned == 0
    assert plan(keys, table, max_attempts=4)[1][1] == ("thrice", "v1", 4)


@pytest.mark.parametrize("error_type", ["PermissionError", "NoCredentialsError", "MemoryError", "AcceleratorError"])
@pytest.mark.parametrize("stage", ["fetch", "detect"])
def test_what_fails_for_what_is_around_it_is_never_given_up(
    error_type, stage, tmp_path, listing, plan, new_table, rows
):
    table = new_table(tmp_path / "table", rows.failed("a", stage, num_attempts=1000, error_type=error_type))
    assert plan(listing(("a", "v1")), table)[1] == [("a", "v1", 1001)]


@pytest.mark.parametrize("error_type", ["FileNotFoundError", "TooLargeError", "ProcessKilled", "OutputError"])
def test_what_fails_by_itself_is_given_up(error_type, tmp_path, listing, plan, new_table, rows):
    table = new_table(tmp_path / "table", rows.failed("a", "fetch", num_attempts=3, error_type=error_type))
    assert plan(listing(("a", "v1")), table)[1] == []


def test_runs_of_a_day_are_one_attempt(tmp_path, listing, plan, new_table, rows):
    """As when a scheduler tries again."""
    failed = [rows.failed(uri, "fetch", num_attempts=num, run_id=RUN, **OWN) for uri, num in (("a", 2), ("b", 3))]
    table = new_table(tmp_path / "table", *failed)
    keys = listing(("a", "v1"), ("b", "v1"))
    assert plan(keys, table, run_id="20260103T235959Z-2")[1] == [("a", "v1", 2)]
    assert plan(keys, table, run_id="20260104T000000Z-3")[1] == [("a", "v1", 3)]


def test_failures_that_do_not_count_are_tried_again(tmp_path, listing, plan, new_table, rows):
    """Of a run in which nearly all failed: broken bytes, too, as it may have been the decoder."""
    columns = {"run_id": RUN, "run_date": date(2026, 1, 3)}
    table = new_table(
        tmp_path / "table",
        rows.failed("broken", "decode", **columns),
        rows.failed("killed", "detect", error_type="ProcessKilled", num_attempts=3, **columns),
        rows.failed("another run's", "decode"),
        rows.ok("ok", **columns),
    )
    table.uncount(RUN, date(2026, 1, 3))
    keys = listing(*((name, "v1") for name in ("broken", "killed", "another run's", "ok")))
    for run_id, attempts in ((f"{RUN}2", (1, 2)), ("20260104T020000Z-1", (1, 3))):
        assert plan(keys, table, run_id=run_id)[1] == [
            (uri, "v1", num) for uri, num in zip(("broken", "killed"), attempts, strict=True)
        ]


def test_failures_of_a_stage_are_planned_again_when_asked_for(tmp_path, listing, plan, new_table, rows):
    table = new_table(
        tmp_path / "table",
        rows.ok("fine"),
        rows.failed("broken", "decode"),
        rows.failed("thrice", "fetch", num_attempts=3, **OWN),
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
        table.replace(rows.table(rows.failed("gone", "fetch", etag="", num_attempts=attempt, **OWN)))
    assert plan(keys, table) == (Plan(listed=1, already_ok=0, already_failed=1, planned=0, planned_bytes=0), [])
    assert count(keys, table) == Tally(ok=0, failed=1, missing=0, doubled=0)


def test_times_prove_nothing(tmp_path, listing, plan, new_table, rows):
    """An object may arrive long after its LastModified, as of a replication: all that is listed is looked up."""
    table = new_table(tmp_path / "table", rows.ok("done"))
    long_ago = datetime(1990, 1, 1, tzinfo=UTC)
    assert plan(listing(("done", "v1", long_ago), ("late", "v1", long_ago)), table)[1] == [("late", "v1", 1)]


def test_a_version_that_comes_back_is_planned_again(tmp_path, listing, plan, count, new_table, rows):
    """A, then B, then A: the table's latest version of the image is not the one that is there."""
    table = new_table(
        tmp_path / "table",
        rows.ok("back", etag="A", run_id="1"),
        rows.ok("back", etag="B", run_id="2"),
        rows.ok("back", etag="A", run_id="1", model_digest="m2"),
        rows.ok("held", etag="A", run_id="1"),
        rows.failed("broken", "decode", etag="A", run_id="1"),
        rows.ok("broken", etag="B", run_id="2"),
    )
    keys = listing(("back", "A"), ("held", "A"), ("broken", "A"))
    counts, work = plan(keys, table)
    assert (counts.already_done, work) == (1, [("back", "A", 2), ("broken", "A", 2)])
    assert plan(keys, table, digest="m2")[1] == [("broken", "A", 1), ("held", "A", 1)]
    table.replace(rows.table(rows.ok("back", etag="A", run_id="3", num_attempts=2)))
    assert plan(keys, table)[1] == [("broken", "A", 2)]
    assert count(keys, table).doubled == 0


def test_versions_are_in_the_order_of_runs_not_of_clocks(tmp_path, listing, plan, new_table, rows):
    """The worker that detected the later one has a clock that is an hour late."""
    early, late = datetime(2026, 1, 2, 3, tzinfo=UTC), datetime(2026, 1, 2, 4, tzinfo=UTC)
    table = new_table(
        tmp_path / "table",
        rows.ok("a", etag="A", run_id="20260101T0", processed_at=late),
        rows.ok("a", etag="B", run_id="20260102T0", processed_at=early),
    )
    assert plan(listing(("a", "B")), table)[1] == []
    assert plan(listing(("a", "A")), table)[1] == [("a", "A", 2)]


def test_versions_that_are_listed_together_are_each_done_once(tmp_path, listing, plan, new_table, rows):
    table = new_table(tmp_path / "table", rows.ok("a", etag="A", run_id="1"), rows.ok("a", etag="B", run_id="2"))
    assert plan(listing(("a", "A"), ("a", "B"), ("a", "C")), table)[1] == [("a", "C", 1)]


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
    with pytest.raises(ReconciliationError, match="ssd-batch maintain --repair"):
        reconcile(plan, 1, 1, count(keys, table))


def test_a_key_that_stands_twice_is_named_before_the_start(tmp_path, listing, plan, count, new_table, rows):
    table = new_table(tmp_path / "table", rows.ok("a"), rows.ok("b"))
    table.append(rows.table(rows.ok("a"), rows.ok("not listed")))
    with pytest.raises(ReconciliationError, match=r"^1 rows of the table have the key .* ssd-batch maintain --repair"):
        plan(listing(("a", "v1"), ("b", "v1")), table)
    with pytest.raises(ReconciliationError, match=r"ssd-batch maintain --repair"):
        reconcile(Plan(2, 2, 0, 0), 0, 0, count(listing(("a", "v1"), ("b", "v1")), table))
