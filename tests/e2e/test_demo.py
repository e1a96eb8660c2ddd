"""What a newcomer runs first."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.demo import PACKAGE
from jobs.demo.run import NUM_ANNOTATED, NUM_PICTURES, demo
from pipeline.table.delta import ResultTable
from pipeline.table.query import query

pytestmark = pytest.mark.slow


def test_the_demo_finds_what_was_drawn_and_does_nothing_twice(tmp_path: Path) -> None:
    first = subprocess.run(
        [sys.executable, "-m", "jobs", "demo", "--output", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stderr
    assert f"{NUM_PICTURES - 1} ok, 1 failed" in first.stdout
    assert len(list((tmp_path / "annotated").iterdir())) == NUM_ANNOTATED

    summary, mean_ap = demo(tmp_path)
    assert (summary.already_done, summary.planned) == (NUM_PICTURES, 0)
    assert mean_ap >= 0.9
    with query(
        ResultTable(str(tmp_path / "table")), "SELECT parse_filename(uri), error_stage FROM failures"
    ) as failures:
        assert failures.fetchall() == [("broken.jpg", "decode")]


def test_the_package_is_small() -> None:
    assert sum(file.stat().st_size for file in PACKAGE.iterdir()) <= 5 * 2**20
