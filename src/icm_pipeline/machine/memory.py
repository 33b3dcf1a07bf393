"""Freed memory stays with the process: for runs whose tensors live on the CPU.

glibc hands the memory of a large tensor back to the system when the tensor goes, and the next layer takes it anew, at a
page fault for each 4 KiB. Whether it does so depends on what happens to lie on top of the heap: without this a run can
take a fifth longer than the same run a minute before.
"""

import ctypes
import os
import platform

KEPT_UP_TO = 2**30  # bytes of one block that come from the heap, and of free heap that is not handed back
OLD_LIMIT = 2**25  # the most that glibc before 2.35 takes for a block
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; return whether that was done.

    It is not where the C library is another than glibc, or where the user has set its thresholds himself.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in USERS_OWN):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    large = mallopt(M_MMAP_THRESHOLD, KEPT_UP_TO) or mallopt(M_MMAP_THRESHOLD, OLD_LIMIT)
    return bool(large and mallopt(M_TRIM_THRESHOLD, KEPT_UP_TO))
