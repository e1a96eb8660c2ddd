"""The command as a process, as people start it, and pictures for it."""

import io
import json
import os
import subprocess
import sys
from typing import Any

from jobs.demo.pictures import draw_picture

TIMEOUT_S = 240


def start(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """In a process group of its own."""
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | (environment or {}), start_new_session=True, **pipes)


def run(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """To its end: exit code, standard output and standard error."""
    process = start(*arguments, environment=environment)
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


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
