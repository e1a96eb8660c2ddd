import resource
import sys

import pytest
import torch

from model.memory import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's matter")
def test_freed_memory_is_taken_again() -> None:
    """64 MiB have 16,384 pages: without, each turn brings so many page faults."""
    keep_freed_memory()
    torch.empty(2**24).fill_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(2**24).fill_(1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 16_384
