import io

import pytest

from pipeline import progress
from pipeline.progress import Progress, describe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(clock_of):
    return clock_of(progress, 100.0)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ((0, 0, 10, 0.0, None), "0 of 10 images · 0.0 images/s · 0 failed · starting"),
        ((5, 1, 10, 2.5, 2.0), "5 of 10 images · 2.5 images/s · 1 failed · 0:02 left"),
        (
            (1234567, 1000, 9999999, 1.26, 3725.9),
            "1,234,567 of 9,999,999 images · 1.3 images/s · 1,000 failed · 62:05 left",
        ),
    ],
)
def test_the_line(state, line):
    assert describe(*state) == line


def test_a_log_gets_a_line_at_the_first_results_and_every_ten_seconds(clock):
    stream = io.StringIO()
    shown = Progress(100, stream)
    clock.now += 5
    shown.update(10, 1)
    first = "10 of 100 images · 2.0 images/s · 1 failed · 0:45 left\n"
    assert stream.getvalue() == first
    clock.now += 9
    shown.update(10, 0)
    assert stream.getvalue() == first
    clock.now += 1  # Since the first results: 20 images in 10 s.
    shown.update(10, 0)
    assert stream.getvalue() == first + "30 of 100 images · 2.0 images/s · 1 failed · 0:35 left\n"
    clock.now += 10
    shown.update(70, 2)
    shown.close()
    last = "100 of 100 images · 4.5 images/s · 3 failed · 0:00 left\n"
    assert stream.getvalue().splitlines(keepends=True)[2:] == [last, last]


def test_a_terminal_has_one_line_that_changes(clock):
    stream = Terminal()
    shown = Progress(4, stream)
    clock.now += 1
    shown.update(1, 0)
    clock.now += 1
    shown.update(3, 0)
    shown.close()
    assert stream.getvalue().count("\r\x1b[K") == 3
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("4 of 4 images · 3.0 images/s · 0 failed · 0:00 left\n")


def test_results_that_come_at_once_count_from_the_start(clock):
    stream = io.StringIO()
    shown = Progress(4, stream)
    clock.now += 2
    shown.update(4, 0)
    shown.close()
    assert stream.getvalue() == "4 of 4 images · 2.0 images/s · 0 failed · 0:00 left\n"


def test_no_results_have_no_rate(clock):
    stream = io.StringIO()
    Progress(4, stream).close()
    assert stream.getvalue() == "0 of 4 images · 0.0 images/s · 0 failed · starting\n"
