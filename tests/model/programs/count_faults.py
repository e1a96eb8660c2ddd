"""Print how many page faults allocations cost, before and after freed memory is kept."""

import resource

import torch

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
