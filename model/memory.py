"""How this process's C library handles memory."""

import ctypes
import sys

M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
"""Numbers of glibc's `mallopt`. Source: mallopt(3)."""


def keep_freed_memory() -> None:
    """Keep memory that is freed for what is allocated next; without glibc, nothing.

    Each forward pass frees what the next allocates again. glibc gives large blocks back to the kernel, which zeroes them page by page: a
    sixth to a fifth of the time of a pass on a CPU. The process then stays as large as it once was.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc and hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
