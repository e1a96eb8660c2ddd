"""How many images may fail, and alike."""

import pyarrow as pa
import pytest

from pipeline.errors import TargetMissedError
from pipeline.inference.failures import FEW_IMAGES, WINDOW_IMAGES, Failures
from pipeline.inference.summary import Summary
from pipeline.stages.rows import IS_FIRST


def done(planned: int, failed: int) -> Summary:
    return Summary("r1", "table", "m1", planned, 0, 0, planned, planned - failed, failed, 1.0, 1.0)


@pytest.fixture
def block(rows):
    """Rows of which some failed, in turns of these ways."""

    def block(num_rows: int, num_failed: int, *ways: tuple[str, str], is_first: bool = True) -> pa.Table:
        ways = ways or (("fetch", "PermissionError"),)
        failed = [
            rows.failed(f"failed-{number}", ways[number % len(ways)][0], error_type=ways[number % len(ways)][1])
            for number in range(num_failed)
        ]
        found = rows.table(*failed, *(rows.ok(f"ok-{number}") for number in range(num_rows - num_failed)))
        return found.append_column(IS_FIRST, pa.array([is_first] * num_rows, pa.bool_()))

    return block


BROKEN = "decode", "DecodeError"


@pytest.mark.parametrize(
    ("planned", "failed", "share"),
    [(100, 1, 0.01), (100, 50, None), (100, 100, 1.0), (0, 0, 0.0), (100, 0, 0.0), (0, 0, None)],
)
def test_so_many_may_fail(planned, failed, share, block):
    failures = Failures(share)
    assert failures.take(block(planned, failed)) == failed
    failures.check(done(planned, failed))
    assert not failures.are_systemic


@pytest.mark.parametrize(("failed", "share"), [(2, 0.01), (1, 0.0), (51, None), (100, None), (91, 0.9)])
def test_more_may_not(failed, share, block):
    failures, summary = Failures(share), done(100, failed)
    failures.take(block(100, failed))
    with pytest.raises(
        TargetMissedError, match=f"{failed} of 100 images failed, more than {0.5 if share is None else share:g}"
    ) as error:
        failures.check(summary)
    assert (error.value.exit_code, error.value.summary) == (3, summary)
    assert f"{failed} in fetch (PermissionError: why)" in str(error.value)
    assert failures.are_systemic == (failed > 50)


def test_those_that_failed_before_were_to_be_expected(block):
    """Unless a share was given; and whatever else fails counts."""
    failures = Failures(None)
    failures.take(block(WINDOW_IMAGES, WINDOW_IMAGES, is_first=False))
    failures.take(block(100, 50))
    failures.check(done(1100, 1050))
    failures = Failures(0.5)
    failures.take(block(100, 51, is_first=False))
    with pytest.raises(TargetMissedError, match="51 of 100 images failed"):
        failures.check(done(100, 51))
    assert not failures.are_systemic


def test_a_few_images_that_fail_by_themselves_are_what_they_are(block):
    """Unless a share was given, or it is not their own fault."""
    few = FEW_IMAGES - 1
    for share, way, num, is_missed in (
        (None, BROKEN, few, False),
        (None, ("fetch", "FileNotFoundError"), few, False),
        (0.5, BROKEN, few, True),
        (None, ("fetch", "OSError"), few, True),
        (None, BROKEN, FEW_IMAGES, True),
    ):
        failures = Failures(share)
        failures.take(block(num, num, way))
        if not is_missed:
            failures.check(done(num, num))
            continue
        with pytest.raises(TargetMissedError):
            failures.check(done(num, num))


def test_a_run_is_stopped_when_most_of_a_thousand_fail_alike(block):
    failures = Failures(None)
    failures.take(block(WINDOW_IMAGES, 500))
    failures.take(block(400, 400))
    with pytest.raises(
        TargetMissedError, match=r"750 of 1,000 images failed alike, in fetch \(PermissionError: why\): .* stopped"
    ):
        failures.take(block(600, 350))
    assert failures.are_systemic


def test_a_run_goes_on_when_they_fail_in_different_ways_or_may(block):
    failures = Failures(None)
    assert failures.take(block(WINDOW_IMAGES, WINDOW_IMAGES, ("fetch", "OSError"), ("detect", "OutputError"))) == 1000
    failures = Failures(1.0)
    assert failures.take(block(WINDOW_IMAGES, WINDOW_IMAGES)) == 1000


def test_broken_bytes_stop_a_run_at_its_first_thousand_only(block):
    """Later ones may lie in a folder of broken files."""
    failures = Failures(None)
    with pytest.raises(TargetMissedError):
        failures.take(block(WINDOW_IMAGES, 501, BROKEN))
    failures = Failures(None)
    failures.take(block(WINDOW_IMAGES, 499, BROKEN))
    assert failures.take(block(WINDOW_IMAGES, 1000, BROKEN)) == 1000
