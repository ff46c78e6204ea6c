"""The memory of this process: how much it took, and that it keeps what is freed.

On a CPU each step then uses the pages of the one before.
"""

import ctypes
import os
import sys
from pathlib import Path

# mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
DEVICES = Path("/dev")
STATUS = Path("/proc/self/status")
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


def peak_memory() -> int:
    """The most bytes of memory that this process has had at once."""
    if STATUS.exists():  # what `getrusage` tells on Linux counts the process that started this one
        lines = STATUS.read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    import resource  # not on every system

    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
