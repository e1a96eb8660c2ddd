"""Being stopped by a signal: what is finished is committed first, then the run ends, whatever it waits for."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_listeners: list[Callable[[], None]] = []


@contextmanager
def stoppable() -> Iterator[None]:
    """Here the signals are told to who listens, and are a KeyboardInterrupt: the one exception that Ray's core hands on as it is.

    For the main thread, which Python gives all signals to.

    Raises:
        StoppedError: at the end, in the place of all that followed from a signal.
    """
    caught: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for tell in _listeners:
            tell()
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except BaseException as error:
        if not caught:
            raise
        raise StoppedError(caught[0]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def told(tell: Callable[[], None]) -> Iterator[None]:
    """Call this when a signal comes, before anything ends for it; it must neither wait nor raise."""
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)


@contextmanager
def handler_kept(number: signal.Signals) -> Iterator[None]:
    """Whatever handler is set in here: in the end the one that was there before is, and gets what the other was given."""
    handler = signal.getsignal(number)
    try:
        yield
    except SystemExit:  # of the other, which ends the process
        signal.signal(number, handler)
        signal.raise_signal(number)
        raise
    finally:
        signal.signal(number, handler)
