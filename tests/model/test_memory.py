import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from model.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(2**22).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
usual = faults()
keep_freed_memory()
faults()
print(usual, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's matter")
def test_freed_memory_is_taken_again() -> None:
    """20 times 16 MiB are 81,920 pages of 4 KiB; of each second one, or more, the kernel is asked otherwise."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert kept < usual / 10
