"""Print how many page faults allocations cost, before and after freed memory is kept: in the main thread, or in another one."""

import resource
import sys
from threading import Thread

import torch

from model.memory import keep_freed_memory


def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.empty(20 * 2**20).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def compare() -> None:
    torch.set_num_threads(1)
    usual = faults()
    keep_freed_memory()
    faults()  # these make the room
    print(usual, faults())


if "--in-a-thread" in sys.argv:
    thread = Thread(target=compare)
    thread.start()
    thread.join()
else:
    compare()
