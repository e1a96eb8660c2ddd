"""Where the work on images is done: by processes of this machine, or on a Ray cluster. Quick to import."""

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache

from pipeline.settings import LOCAL, ClusterSettings


def works_here(settings: ClusterSettings) -> bool:
    """Decide who works: processes of this machine, or Ray.

    Ray works where an address names a cluster or asks for one, inside of a cluster that was entered, and on a machine with GPUs.
    """
    ray = sys.modules.get("ray")
    is_in_cluster = ray is not None and ray.is_initialized()
    return settings.address == LOCAL and not is_in_cluster and not num_local_gpus()


def place(settings: ClusterSettings) -> AbstractContextManager[None]:
    """Return the Ray cluster that a run works on, to be entered; nothing is there to enter for processes of this machine."""
    if works_here(settings):
        return nullcontext()
    from pipeline.cluster import cluster

    return cluster(settings.address)


@cache
def num_local_gpus() -> int:
    """Return the number of CUDA devices that this process sees, asking the driver's library: torch takes seconds to import."""
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
    """Return the number of cores that this process may use: its affinity, and its container's share of time."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))
