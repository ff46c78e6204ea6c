"""The machine's own rates, measured in the process that is compared with them."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alphamed_jax.runtime.memory import peak_memory


class Probe(NamedTuple):
    """How much work rates are measured on: it has to outlast what starting it takes."""

    width: int
    """Rows and columns of the factors of a product."""
    copied: int
    """Bytes that are copied, far beyond any cache."""
    calls: int
    """Calls one behind the other, of which the last is waited for."""


CPU = Probe(2048, 1 << 28, 1)
ACCELERATOR = Probe(8192, 1 << 30, 10)


class Rates(NamedTuple):
    """What the machine can do when it does nothing else."""

    product_flops_per_s: float
    """Matrix product of two square arrays (`Probe.width`) in the compute dtype."""
    copy_bytes_per_s: float
    """Reading and writing `Probe.copied` bytes, both counted."""


def seconds(function: Callable[[], Any], times: int = 5, calls: int = 1) -> float:
    """Median wall time of a call, of several without a pause; the first ones are not counted."""
    jax.block_until_ready(function())
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        for _ in range(calls):
            last = function()
        jax.block_until_ready(last)
        taken.append((time.perf_counter() - start) / calls)
    return statistics.median(taken)


def measure_rates(dtype: Any, probe: Probe | None = None) -> Rates:
    """Measure both rates on one device (about two seconds on two cores).

    Args:
      probe: None: what suits the platform.
    """
    probe = probe or (CPU if jax.default_backend() == "cpu" else ACCELERATOR)
    square = jnp.ones((probe.width, probe.width), dtype)
    product = jax.jit(lambda a: a @ a)
    # In place: fresh pages for every result would cost more than the copy.
    wide = [jnp.ones(probe.copied // 4, jnp.float32)]
    step = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy():
        wide[0] = step(wide[0])
        return wide[0]

    return Rates(
        2 * probe.width**3 / seconds(lambda: product(square), calls=probe.calls),
        2 * probe.copied / seconds(copy, calls=probe.calls),
    )


def peak_memory_mb() -> float:
    """Most memory this process ever had resident, in MiB; compilation counts."""
    return peak_memory() / 2**20


def device_peak_mb() -> float | None:
    """Most bytes of a device's own memory in use at once, in MiB; None where it keeps no count."""
    counts = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in counts if "peak_bytes_in_use" in found]
    return max(peaks) / 2**20 if peaks else None


class Clock:
    """Share of the processors that others used between two moments (Linux; elsewhere None)."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        stat = Path("/proc/stat")
        if not stat.is_file():
            return None
        fields = [int(x) for x in stat.read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, time.process_time()

    def other_share(self) -> float | None:
        """Above 0.05 the timings are spoilt."""
        end = self._now()
        if self._start is None or end is None:
            return None
        wall, busy, own = (b - a for a, b in zip(self._start, end, strict=True))
        return max(0.0, busy - own) / (wall * (os.cpu_count() or 1))
