"""Count the cores and the GPUs of this machine. This is quick, because nothing here imports torch or Ray."""

import ctypes
import os
import sys
from functools import cache


@cache
def num_local_gpus() -> int:
    """Return the number of CUDA devices that this process sees.

    The driver's library is asked, because torch takes seconds to import.
    """
    if sys.platform not in ("linux", "win32"):
        return 0
    try:
        cuda = ctypes.CDLL("libcuda.so.1" if sys.platform == "linux" else "nvcuda.dll")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def local_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and by its container's share of time."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))
