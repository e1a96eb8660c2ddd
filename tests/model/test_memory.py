import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parent / "programs/count_faults.py"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's matter")
def test_freed_memory_is_taken_again() -> None:
    """20 times 16 MiB are 81,920 pages of 4 KiB; of each second one, or more, the kernel is asked otherwise."""
    done = subprocess.run([sys.executable, FAULTS], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert kept < usual / 10
