import pytest

from pipeline.errors import TargetMissedError
from pipeline.summary import Summary, check_failures


def done(planned: int, failed: int) -> Summary:
    return Summary("r1", "table", "m1", planned, 0, 0, planned, planned - failed, failed, 1.0, 1.0)


@pytest.mark.parametrize(
    ("planned", "failed", "share"), [(100, 1, 0.01), (100, 100, None), (100, 100, 1.0), (0, 0, 0.0), (100, 0, 0.0)]
)
def test_so_many_may_fail(planned, failed, share):
    check_failures(done(planned, failed), share)


@pytest.mark.parametrize(("failed", "share"), [(2, 0.01), (1, 0.0)])
def test_more_may_not(failed, share):
    with pytest.raises(TargetMissedError, match=f"{failed} of 100 images failed, more than {share:g}") as error:
        check_failures(done(100, failed), share)
    assert error.value.exit_code == 3
