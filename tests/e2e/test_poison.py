"""Images that kill the process which holds them: the command as a process, with an accident built into its workers."""

from pathlib import Path
from typing import Any

import pytest

from tests.appended_code import appended
from tests.e2e.command import ask, infer, jpeg, run

pytestmark = pytest.mark.slow

DECODE = """
import os, signal, time

import numpy as np

decode_safely = decode_stored


def decode_stored(data, *limits):
    if b"KILL ME" in data or "EVERY_IMAGE_KILLS" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"CRASH ME" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"EAT MEMORY" in data:
        eaten = [np.ones(2**26, np.uint8) for _ in range(int(os.environ["EATEN_BYTES"]) // 2**26)]
        time.sleep(600)  # Ray looks four times a second.
    return decode_safely(data, *limits)
"""
DETECT = """
class BrittleDetector(Detector):
    def __call__(self, images, sizes):
        if 59 in sizes[:, 0]:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return super().__call__(images, sizes)


Detector = BrittleDetector
"""
RUNNER = """
import os

if "EVERY_IMAGE_KILLS" in os.environ:
    MIN_LOST_BLOCKS = 1
"""

ACCIDENTS = appended(
    {"pipeline.images.decode": DECODE, "pipeline.stages.detect": DETECT, "pipeline.stages.runner": RUNNER}
)
"""The environment in which they happen."""


def little_memory() -> dict[str, str]:
    """Ray kills when 7 GiB more than now are used on this machine: a run and what runs beside it take less, the image eats more."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    total, available = (int(line.split()[1]) for line in (lines[0], lines[2]))  # in KiB
    if available < 12 * 2**20:
        pytest.skip("needs 12 GiB of free memory")
    return {
        "RAY_memory_usage_threshold": str((total - available + 7 * 2**20) / total),
        "EATEN_BYTES": str(10 * 2**30),
    }


def failures(table: Path) -> dict[str, list[Any]]:
    sql = "SELECT uri, error_stage, error_type, num_attempts FROM images WHERE status = 'failed'"
    return {Path(uri).name: rest for uri, *rest in (row.values() for row in ask(table, sql))}


def test_an_image_that_kills_its_process_costs_itself_alone(model, tmp_path):
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    pictures.mkdir()
    for index in range(37):
        (pictures / f"{index}.jpg").write_bytes(jpeg())
    (pictures / "kill.jpg").write_bytes(jpeg() + b"KILL ME")
    (pictures / "crash.jpg").write_bytes(jpeg() + b"CRASH ME")
    (pictures / "break-device.jpg").write_bytes(jpeg(width_px=59))
    arguments = ("--input", pictures, "--table", table, "--model", model, "--num-detectors", 2)

    first = infer(*arguments, environment=ACCIDENTS)
    assert [first[k] for k in ("listed", "planned", "ok", "failed")] == [40, 40, 37, 3]
    assert failures(table) == {
        "kill.jpg": ["fetch", "ProcessKilled", 1],
        "crash.jpg": ["fetch", "ProcessKilled", 1],
        "break-device.jpg": ["detect", "ProcessKilled", 1],
    }

    second = infer(*arguments, "--dry-run")
    assert [second[k] for k in ("already_done", "planned")] == [37, 3], "another run tries them again"


def test_where_ray_watches_memory_an_image_that_eats_it_costs_itself_alone(model, tmp_path):
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    pictures.mkdir()
    for index in range(7):
        (pictures / f"{index}.jpg").write_bytes(jpeg())
    (pictures / "eat.jpg").write_bytes(jpeg() + b"EAT MEMORY")
    arguments = ("--input", pictures, "--table", table, "--model", model, "--address", "local-ray")
    found = infer(*arguments, environment=ACCIDENTS | little_memory())
    assert [found[k] for k in ("listed", "ok", "failed")] == [8, 7, 1]
    assert failures(table) == {"eat.jpg": ["fetch", "ProcessKilled", 1]}


def test_a_run_in_which_everything_dies_ends_and_says_so(model, tmp_path):
    pictures, table = tmp_path / "pictures", tmp_path / "table"
    pictures.mkdir()
    for index in range(100):
        (pictures / f"{index}.jpg").write_bytes(jpeg())
    arguments = ("infer", "--input", pictures, "--table", table, "--model", model, "--num-detectors", 1)
    code, _, err = run(*arguments, environment=ACCIDENTS | {"EVERY_IMAGE_KILLS": "yes"})
    assert code == 1
    assert "2 images killed the process that held them alone, the last one in stage fetch" in err
    assert "Traceback" not in err
    assert list(failures(table).values()) == [["fetch", "ProcessKilled", 1]] * 2
