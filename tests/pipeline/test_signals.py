"""Signals are sent to this process, for which the handlers stand only within `stoppable`."""

import os
import signal
import subprocess
import sys

import pytest

from pipeline.errors import StoppedError
from pipeline.signals import SIGNALS, handler_kept, on_stop, stoppable


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def stop_by(number: signal.Signals, heard: list[str]) -> None:
    with stoppable(), on_stop(lambda: heard.append("told")):
        try:
            signal.raise_signal(number)
        finally:
            heard.append("ended")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_told_before_anything_ends_and_has_an_exit_code(number, exit_code):
    before, heard = handlers(), []
    with pytest.raises(StoppedError, match=f"stopped by {number.name}") as stopped:
        stop_by(number, heard)
    assert stopped.value.exit_code == exit_code
    assert heard == ["told", "ended"]
    assert handlers() == before


def break_while_it_ends() -> None:
    with stoppable():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise ConnectionError("what it needs is gone, too")


def test_what_breaks_because_of_a_signal_is_a_stop():
    with pytest.raises(StoppedError, match="SIGTERM"):
        break_while_it_ends()


def fail() -> None:
    with stoppable():
        raise ZeroDivisionError


def test_an_error_without_a_signal_is_itself():
    with pytest.raises(ZeroDivisionError):
        fail()


def test_who_has_left_is_told_no_more():
    heard: list[str] = []
    with on_stop(lambda: heard.append("left")):
        pass
    with pytest.raises(StoppedError):
        stop_by(signal.SIGTERM, heard)
    assert heard == ["told", "ended"]


def stop_under_another_handler() -> None:
    with stoppable(), handler_kept(signal.SIGTERM):
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)


def test_a_handler_that_a_library_sets_does_not_stay_and_hands_on_its_signal():
    with pytest.raises(StoppedError, match="SIGTERM"):
        stop_under_another_handler()
    before = handlers()
    with handler_kept(signal.SIGTERM):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert handlers() == before


AMID_EXEC = """
import sys
from pipeline.errors import StoppedError
from pipeline.signals import stoppable
try:
    with stoppable():
        exec("import signal; signal.raise_signal(signal.SIGTERM)")
except StoppedError as error:
    sys.exit(error.exit_code)
"""


def test_a_signal_amid_source_text_has_its_exit_code(tmp_path):
    """As dataclasses run it at their import. After a plain KeyboardInterrupt `python -m` would end by SIGINT."""
    (tmp_path / "amid.py").write_text(AMID_EXEC)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), str(tmp_path)])}
    ended = subprocess.run([sys.executable, "-m", "amid"], env=environment, capture_output=True, text=True, timeout=240)
    assert (ended.returncode, ended.stderr) == (143, "")


IN_A_DESTRUCTOR = """
import signal, sys, time
from pipeline.errors import StoppedError
from pipeline.signals import stoppable
class Stopped:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)
try:
    with stoppable():
        Stopped()
        time.sleep(60)
except StoppedError as error:
    sys.exit(error.exit_code)
"""


def test_a_signal_in_a_destructor_is_not_lost():
    """Python prints what a destructor raises, and goes on."""
    command = [sys.executable, "-c", IN_A_DESTRUCTOR]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (ended.returncode, ended.stderr) == (143, "")
