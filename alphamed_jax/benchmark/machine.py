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

PRODUCT_WIDTH = 2048
COPY_BYTES = 1 << 28  # far beyond any cache


class Rates(NamedTuple):
    """What the machine can do when it does nothing else."""

    product_flops_per_s: float
    """Matrix product of two 2048 x 2048 arrays in the compute dtype."""
    copy_bytes_per_s: float
    """Reading and writing 256 MiB, both counted."""


def seconds(function: Callable[[], Any], times: int = 5) -> float:
    """Median wall time of a call whose arrays are waited for, after one that is not counted."""
    jax.block_until_ready(function())
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(function())
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure_rates(dtype: Any) -> Rates:
    """Measure both rates on one device (about two seconds on two cores)."""
    square = jnp.ones((PRODUCT_WIDTH, PRODUCT_WIDTH), dtype)
    product = jax.jit(lambda a: a @ a)
    # In place: fresh pages for every result would cost more than the copy.
    wide = [jnp.ones(COPY_BYTES // 4, jnp.float32)]
    step = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy():
        wide[0] = step(wide[0])
        return wide[0]

    return Rates(
        2 * PRODUCT_WIDTH**3 / seconds(lambda: product(square)),
        2 * COPY_BYTES / seconds(copy),
    )


def peak_memory_mb() -> float:
    """Most memory this process ever had resident, in MiB; compilation counts."""
    return peak_memory() / 2**20


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
