"""The memory settings of this process's C library."""

import ctypes
import sys

M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX = -4, -1, -8
"""The numbers of options of glibc's `mallopt`. Source: mallopt(3)."""
ONE_ARENA = ("MALLOC_ARENA_MAX", "1")
"""A variable of the environment and its value. `keep_freed_memory` needs it in processes that compute in another thread than the main
one, as Ray's workers do: glibc gives such a thread memory of its own, of which it returns large blocks whatever it is told. Source:
mallopt(3)."""


def keep_freed_memory(is_shared: bool = False) -> None:
    """Keep freed memory for the next allocations; without glibc, do nothing.

    Each forward pass frees memory that the next one allocates again. By default, glibc gives large blocks back to the
    kernel, which zeroes them page by page. This takes a sixth to a fifth of the time of a pass on a CPU. After this
    call, the process stays as large as it once was.

    Args:
        is_shared: let all threads allocate from one place, so that each reuses what another has freed.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc and hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        if is_shared:
            libc.mallopt(M_ARENA_MAX, 1)
