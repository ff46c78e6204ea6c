"""Freed memory stays with the process: on a CPU each step uses the pages of the one before."""

import ctypes
import os
import sys
from pathlib import Path

# mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
DEVICES = Path("/dev")
ACCELERATORS = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*")


def computes_on_cpu() -> bool:
    """Whether JAX will find no accelerator; asked before it looks for one."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    return asked == "cpu" or not any(any(DEVICES.glob(name)) for name in ACCELERATORS)


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, where the arrays are in host memory; say whether it does.

    By default it gives every large array back to the kernel. XLA for CPUs allocates all it needs
    anew at each call, so every step would pay for gigabytes of fresh, zeroed pages: half of an
    update's time on some virtual machines. One arena, as others cannot hold large arrays.

    Must run before JAX starts its threads. Other C libraries and systems: nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or not computes_on_cpu():
        return False
    settings = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
    return all(mallopt(name, value) for name, value in settings.items())
