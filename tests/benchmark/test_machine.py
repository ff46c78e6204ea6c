"""A machine's rates and peaks: what is timed outlasts what starting it takes."""

from types import SimpleNamespace

import jax
import pytest

from alphamed_jax.benchmark import machine
from alphamed_jax.benchmark.machine import Probe, device_peak_mb, measure_rates, seconds


def test_calls_without_a_pause_share_the_time_until_the_last_is_done(monkeypatch):
    # Given calls that take two seconds each once they run, and a clock that only waiting moves,
    now, started = [0.0], [0]

    def call():
        started[0] += 1
        return started[0]

    def wait(_):
        now[0] += 2.0 * started[0]
        started[0] = 0

    monkeypatch.setattr(machine.jax, "block_until_ready", wait)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])
    # then one takes two seconds, however many are started before one waits.
    assert seconds(call) == 2.0
    assert seconds(call, calls=10) == 2.0


def test_the_work_that_is_timed_is_the_work_that_is_counted(monkeypatch):
    # Given that each call takes a second,
    asked = []
    monkeypatch.setattr(machine, "seconds", lambda f, calls: asked.append((f(), calls)) or 1.0)
    rates = measure_rates("float32", Probe(width=16, copied=4096, calls=3))
    (product, calls), (copy, again) = asked
    assert (product.shape, copy.nbytes, calls, again) == ((16, 16), 4096, 3, 3)
    assert rates == (2 * 16**3, 2 * 4096)


@pytest.mark.parametrize(
    ("platform", "probe"), [("cpu", machine.CPU), ("gpu", machine.ACCELERATOR)]
)
def test_an_accelerator_gets_more_work_at_once(monkeypatch, platform, probe):
    seen = []
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(machine.jnp, "ones", lambda shape, dtype: seen.append(shape))
    monkeypatch.setattr(machine, "seconds", lambda f, calls: seen.append(calls) or 1.0)
    measure_rates("bfloat16")
    assert seen == [(probe.width, probe.width), probe.copied // 4, probe.calls, probe.calls]


def test_the_peak_of_the_devices_is_that_of_the_fullest_one_that_counts(monkeypatch):
    def devices(*counts):
        found = [SimpleNamespace(memory_stats=lambda told=told: told) for told in counts]
        monkeypatch.setattr(jax, "local_devices", lambda: found)

    devices({"peak_bytes_in_use": 3 * 2**20}, {"peak_bytes_in_use": 5 * 2**20}, None)
    assert device_peak_mb() == 5.0
    devices(None, {"bytes_limit": 7})
    assert device_peak_mb() is None
