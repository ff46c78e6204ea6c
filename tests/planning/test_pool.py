"""A GPU is planned with the part of its memory that JAX takes, and asked for it at the start."""

from types import SimpleNamespace

import pytest
from helpers import TINY
from plans import config

from alphamed_jax.errors import UserError
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.here import memory_line
from alphamed_jax.planning.pool import pool_share

GIB = 2**30


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch):
    for name in ("CLIENT_MEM_FRACTION", "PYTHON_CLIENT_MEM_FRACTION", "PYTHON_CLIENT_ALLOCATOR"):
        monkeypatch.delenv(f"XLA_{name}", raising=False)


def memory_of(name, **flags):
    return devices_for(name, "auto", PlanFlags(**flags)).chip.memory / GIB


def test_three_quarters_of_the_card_are_planned_with_by_default():
    assert memory_of("h100:1") == pytest.approx(59.7, abs=0.05)
    assert memory_of("a100:8") == pytest.approx(60.0)
    said = devices_for("h100:1", "auto", PlanFlags()).pool
    assert "0.75 of a card's 79.6 GiB" in said


@pytest.mark.parametrize("name", ["XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"])
def test_the_share_in_force_is_planned_with(monkeypatch, name):
    monkeypatch.setenv(name, ".92")
    assert memory_of("a100:8") == pytest.approx(0.92 * 80)
    assert "0.92 of a card's" in devices_for("a100:1", "auto", PlanFlags()).pool


def test_without_preallocation_the_share_is_the_same_and_without_a_pool_it_is_all():
    assert pool_share({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}) == 0.75
    assert pool_share({"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}) == 1.0


def test_memory_that_is_given_is_taken_as_it_is():
    assert memory_of("h100:1", hbm_gb=70.0) == 70
    assert memory_of("cpu:1") == 8


@pytest.mark.parametrize("text", ["most", "0", "-1", "nan", "inf"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="XLA_CLIENT_MEM_FRACTION is"):
        pool_share({"XLA_CLIENT_MEM_FRACTION": text})


def test_a_share_under_both_names_is_refused_as_jax_does():
    with pytest.raises(UserError, match="are both set"):
        pool_share({"XLA_CLIENT_MEM_FRACTION": "0.9", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.8"})


def gpus(*limits):
    return [
        SimpleNamespace(platform="gpu", memory_stats=lambda limit=limit: {"bytes_limit": limit})
        for limit in limits
    ]


def test_at_the_start_the_least_pool_is_compared_with_what_the_run_needs():
    mesh = devices_for("h100:8", "4x2", PlanFlags()).mesh
    line, fits = memory_line(config(), TINY, mesh, gpus(60 * GIB, 50 * GIB))
    assert fits
    assert "of 50.0 GiB that JAX may use" in line
    line, fits = memory_line(config(), TINY, mesh, gpus(2**20))
    assert not fits
    assert "XLA_CLIENT_MEM_FRACTION=0.9" in line


def test_where_no_gpu_says_how_much_there_is_nothing_is_said():
    mesh = devices_for("cpu:8", "4x2", PlanFlags()).mesh
    for device in (
        SimpleNamespace(platform="gpu", memory_stats=lambda: None),
        SimpleNamespace(platform="cpu", memory_stats=lambda: {"bytes_limit": 1}),
    ):
        assert memory_line(config(), TINY, mesh, [device]) is None
