"""The command as people start it, and pictures for it."""

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.demo.pictures import draw_picture

TIMEOUT_S = 240


def start(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """In a process group of its own."""
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | (environment or {}), start_new_session=True, **pipes)


def run(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """To its end: exit code, standard output and standard error.

    In this process, where torch is imported once for all commands. With an environment or on a cluster, as a process.
    """
    if environment is None and "--address" not in arguments:
        return run_here(*arguments)
    return run_process(*arguments, environment=environment)


def run_process(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """As `run`, always as a process."""
    process = start(*arguments, environment=environment)
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def run_here(*arguments: object) -> tuple[int, str, str]:
    """As `run`, always in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, _logs_of_its_own(), redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["ssd-batch", *map(str, arguments)])
        patch.setattr(sys, "excepthook", sys.excepthook)
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    told, errors = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return code, told, errors


@contextmanager
def _logs_of_its_own() -> Iterator[None]:
    """Log and warn as a new process does."""
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    levels = {name: logging.getLogger(name).level for name in ("", "jobs", "pipeline")}
    root.handlers.clear()
    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def answer(*arguments: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """With `--json`, to its end, which must be good: its object. Nothing else is on standard output."""
    code, out, err = run(*arguments, "--json", environment=environment)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def infer(*arguments: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The summary of a run."""
    return answer("infer", *arguments, environment=environment)


def ask(table: object, sql: str) -> list[dict[str, Any]]:
    """The rows that `query` gives."""
    code, out, err = run("query", "--table", table, sql, "--format", "json")
    assert code == 0, err
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def jpeg(seed: int = 0, width_px: int = 64) -> bytes:
    """A drawn picture's file."""
    encoded = io.BytesIO()
    draw_picture(seed).image.resize((width_px, 48)).save(encoded, "JPEG")
    return encoded.getvalue()
