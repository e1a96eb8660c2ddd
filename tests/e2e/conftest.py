"""The command as a process, and what it needs: a small model, pictures."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.demo.pictures import draw_picture
from model.config import Architecture, Thresholds
from model.package import ModelPackage, PackageRecord
from model.ssd import SSD


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package small enough that only the pipeline takes time; it finds something in any picture."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    record = PackageRecord(
        name="tiny",
        architecture=Architecture(width=0.05),
        class_names=("a", "b"),
        thresholds=Thresholds(score_thresh=0.3, detections_per_img=5),
    )
    package = ModelPackage(record, SSD(record.architecture, 3).state_dict())
    for name, content in package.to_files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    """Draw a picture: its file's content."""

    def jpeg(seed: int = 0, width_px: int = 64) -> bytes:
        encoded = io.BytesIO()
        draw_picture(seed).image.resize((width_px, 48)).save(encoded, "JPEG")
        return encoded.getvalue()

    return jpeg


@pytest.fixture(scope="session")
def run() -> Callable[..., tuple[int, str, str]]:
    """Run the command to its end: exit code, standard output and standard error."""

    def run(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "jobs", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=240, env=os.environ | (environment or {})
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="session")
def infer(run: Callable[..., tuple[int, str, str]]) -> Callable[..., dict[str, Any]]:
    """Run `infer --json` to its end, which must be good: its summary. Nothing else is on standard output."""

    def infer(*arguments: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
        code, out, err = run("infer", *arguments, "--json", environment=environment)
        assert code == 0, err
        summary: dict[str, Any] = json.loads(out)
        return summary

    return infer


@pytest.fixture(scope="session")
def ask(run: Callable[..., tuple[int, str, str]]) -> Callable[[object, str], list[dict[str, Any]]]:
    """Run `query`: its rows."""

    def ask(table: object, sql: str) -> list[dict[str, Any]]:
        code, out, err = run("query", "--table", table, sql, "--format", "json")
        assert code == 0, err
        rows: list[dict[str, Any]] = json.loads(out)
        return rows

    return ask
