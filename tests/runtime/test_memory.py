"""Freed memory stays with the process, where arrays are in host memory."""

import ctypes
import os
import subprocess
import sys

import pytest

from alphamed_jax.runtime import memory

PAGES = """
import resource, sys
from alphamed_jax.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import jax, jax.numpy as jnp
work = jax.jit(lambda x: (x[::-1].reshape(8192, -1) @ x.reshape(-1, 8192)[:, :8]).sum())
x = jnp.arange(2.0**25)  # 128 MiB, and as much for the turned copy
pages = []
for _ in range(60):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work(x).block_until_ready()
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(pages))
"""


def fewest_pages_of_a_call(way):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", PAGES, way]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt"
)
def test_repeated_calls_come_to_use_the_pages_of_those_before():
    # Once the heap has a hole that fits: small arrays in its way make some calls miss it.
    by_default, kept = map(fewest_pages_of_a_call, ("default", "keep"))
    assert by_default > 10_000
    assert kept < 0.05 * by_default


def test_nothing_is_changed_where_arrays_are_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(memory, "computes_on_cpu", lambda: False)
    assert not memory.keep_freed_memory()


def test_accelerators_are_seen_by_their_device_files(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "DEVICES", tmp_path)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert memory.computes_on_cpu()
    (tmp_path / "accel0").touch()
    assert not memory.computes_on_cpu()
    # Unless JAX was told to leave it alone.
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert memory.computes_on_cpu()
