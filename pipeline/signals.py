"""Stop at a signal: finished results are committed first, then the run ends, whatever it waits for."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_S = 0.1
"""The seconds after which a signal whose exception was swallowed is sent again."""
_listeners: list[Callable[[], None]] = []


class Interrupted(KeyboardInterrupt):
    """A signal, as the exception that Ray's core passes on unchanged.

    It is a class of its own because of `python -m`. Dataclasses run an `exec` of source text when they are imported. Once a plain
    KeyboardInterrupt has left such an `exec`, `python -m` ends by SIGINT, whatever exit code is asked for.
    """


@contextmanager
def stoppable() -> Iterator[None]:
    """Call the listeners at a signal, and raise KeyboardInterrupt: the one exception that Ray's core passes on unchanged.

    Use it in the main thread, to which Python gives all signals.

    Raises:
        StoppedError: a signal came; it is raised at the end, instead of any error that followed from the signal.
    """
    caught: list[int] = []
    timers: list[threading.Timer] = []

    def stop(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for listen in _listeners:
            listen()
        raise Interrupted(signal.Signals(number).name)

    def raise_again(ignored: "sys.UnraisableHookArgs") -> None:
        if issubclass(ignored.exc_type, Interrupted) and caught:  # a destructor or a callback has swallowed it
            again = threading.Timer(AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, caught[-1]))
            again.daemon = True
            again.start()
            timers.append(again)
        else:
            hook(ignored)

    hook, sys.unraisablehook = sys.unraisablehook, raise_again
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except BaseException as error:
        if not caught:
            raise
        raise StoppedError(caught[0]) from error
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


@contextmanager
def on_stop(listen: Callable[[], None]) -> Iterator[None]:
    """Call a listener when a signal comes, before anything ends because of it. The listener must neither wait nor raise."""
    _listeners.append(listen)
    try:
        yield
    finally:
        _listeners.remove(listen)


@contextmanager
def handler_kept(number: signal.Signals) -> Iterator[None]:
    """Restore a signal's handler at the end, whatever handler was set meanwhile.

    If that other handler ends the process at the signal, raise the signal again for the restored one.
    """
    handler = signal.getsignal(number)
    try:
        yield
    except SystemExit:  # raised by the other handler, which ends the process
        signal.signal(number, handler)
        signal.raise_signal(number)
        raise
    finally:
        signal.signal(number, handler)
