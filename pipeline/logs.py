"""Write log lines, for people or as one JSON object each. No line has a password, a token or a signed URL."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, TextIO

from pipeline.redaction import redacted

logger = logging.getLogger(__name__)

LogFormat = Literal["text", "json"]

_run_id: ContextVar[str | None] = ContextVar("run_id", default=None)


class TextFormatter(logging.Formatter):
    """A formatter that writes the message alone."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line. For an exception, it also has the traceback."""
        line = redacted(super().format(record))
        return f"Error: {line}" if record.levelno >= logging.ERROR else line


class JsonFormatter(logging.Formatter):
    """A formatter that writes one JSON object per line.

    It has the time (UTC), level, logger, message, run_id (null outside of a run), and for an exception its traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
            "run_id": _run_id.get(),
        }
        if record.exc_info:
            line["traceback"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def set_up() -> None:
    """Log to standard error, as text unless `use` sets another format.

    The log has our own messages, the warnings of other libraries, and exceptions that nobody caught.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("jobs", "pipeline"):
        logging.getLogger(name).setLevel(logging.INFO)
    sys.excepthook = _log_uncaught


def use(log_format: LogFormat) -> None:
    """Log in this format, if `set_up` was called."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, TextFormatter | JsonFormatter):
            handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
            logging.captureWarnings(log_format == "json")


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logger.critical("this should not happen", exc_info=(kind, error, trace))


@contextmanager
def of_run(run_id: str) -> Iterator[None]:
    """Mark the lines that this thread logs in a `with` block with a run's id."""
    before = _run_id.set(run_id)
    try:
        yield
    finally:
        _run_id.reset(before)


def can_rewrite(stream: TextIO) -> bool:
    """Is this a terminal, on which one line may be rewritten to show progress?"""
    return stream.isatty() and not _is_json()


def write_line(stream: TextIO, line: str) -> None:
    """Write progress on a line of its own, or into the log if the log is read by programs."""
    if _is_json():
        logger.info("%s", line)
        return
    stream.write(f"{line}\n")
    stream.flush()


def _is_json() -> bool:
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)
