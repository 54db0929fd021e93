"""The fate of memory that a process frees.

glibc gives large blocks back to the kernel as soon as they are free, and the kernel clears every
page of the next one. Training on a CPU frees and allocates gradients and activations of hundreds of
megabytes at every step; benchmarks/README.md has what that cost.
"""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed() -> bool:
    """Have this process keep freed memory for its next allocations.

    Returns false where its C library is not glibc.

    This is meant for processes that compute on the CPU and then end: the resident memory stays at
    its peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def give_back() -> bool:
    """Give memory back that was freed and kept, where one phase of a job has ended for good.

    Returns false where the C library is not glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim and trim(0))
