import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.memory import ONE_ARENA

FAULTS = Path(__file__).parent / "programs/count_faults.py"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's matter")
@pytest.mark.parametrize(
    ("flags", "environment"),
    [((), {}), (("--in-a-thread",), dict([ONE_ARENA]))],
    ids=["in the main thread", "in another one, as Ray's workers compute"],
)
def test_freed_memory_is_taken_again(flags: tuple[str, ...], environment: dict[str, str]) -> None:
    """Eight times 80 MiB are 163,840 pages of 4 KiB. Most of them are asked of the kernel otherwise."""
    command = [sys.executable, FAULTS, *flags]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert kept < usual / 3
