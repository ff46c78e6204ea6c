"""The bench command: its keys, that it does the work it speaks of, and bad input."""

import json
import sys

import numpy as np
import pytest

from alphamed_jax import bench
from alphamed_jax.benchmark.setup import SHAPES, BenchConfig, make_batch
from alphamed_jax.benchmark.timing import check_differing, differing_responses
from alphamed_jax.errors import UserError
from alphamed_jax.model.network import count_parameters
from alphamed_jax.runtime.liveness import Liveness

TINY = {"shape": "small", "vocab": 320, "layers": 1, "hidden": 32, "heads": 4, "intermediate": 64}
PEER_KEYS = (
    "step_s_median",
    "gen_s_median",
    "train_s_median",
    "gen_tokens_per_s",
    "train_tokens_per_s",
    "step_tokens_per_s",
    "first_step_s",
    "rss_mb_peak",
)


def flags(**settings):
    return [x for name, value in settings.items() for x in (f"--{name.replace('_', '-')}", value)]


def run(monkeypatch, capsys, **settings):
    """What the command prints last, read as JSON."""
    arguments = [str(x) for x in flags(**TINY | settings)]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    monkeypatch.setattr(bench.distributed, "start", lambda devices: Liveness())
    monkeypatch.setattr(bench, "make_mesh", lambda text: bench_mesh())
    bench.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def bench_mesh():
    from helpers import mesh_like

    return mesh_like("1x1")


@pytest.mark.slow
def test_exact_work_has_the_keys_of_other_trainers_and_leaves_a_trace(
    monkeypatch, capsys, tmp_path
):
    sizes = {"prompts": 2, "generations": 2, "prompt_len": 8, "completion_len": 6}
    result = run(monkeypatch, capsys, **sizes, warmup=1, steps=2, profile=tmp_path)
    assert all(result[key] > 0 for key in PEER_KEYS)
    np.testing.assert_allclose(result["gen_tokens_per_s"] * result["gen_s_median"], 4 * 6)
    np.testing.assert_allclose(result["train_tokens_per_s"] * result["train_s_median"], 4 * 14)
    assert result["sequences_per_step"] == 4
    assert len(result["steps_s"]) == 2
    # One shape: the first step compiles all there is.
    assert (result["steps_that_compiled"], result["counted_steps_that_compiled"]) == (1, 0)
    assert all(rate > 0 for rate in result["floor"].values())
    assert 0 < result["share"]["rollout"] < 1
    assert 0 < result["share"]["rest"] < 1
    assert list(tmp_path.glob("**/*.xplane.pb"))
    assert list(tmp_path.glob("**/perfetto_trace.json.gz"))


def test_responses_that_differ_are_counted_and_more_than_one_in_a_hundred_fail():
    # Given rollouts of which two responses have another token, one of them from there on,
    some = np.zeros((300, 5), int)
    other = some.copy()
    other[7, 4], other[200, 1:] = 1, 2
    assert differing_responses(some, some) == 0
    assert differing_responses(some, other) == 2
    # then so few are rounding's, and as many as one in a hundred,
    check_differing(2, 300)
    check_differing(3, 300)
    # but not more.
    with pytest.raises(AssertionError, match="in 4 of 300 responses"):
        check_differing(4, 300)


@pytest.mark.slow
def test_realistic_work_prints_each_saving_on_and_off(monkeypatch, capsys):
    sizes = {"prompts": 6, "generations": 4, "prompt_len": 8, "completion_len": 24}
    result = run(
        monkeypatch, capsys, **sizes, warmup=1, steps=1, workload="realistic", micro_batch=4
    )
    savings = result["savings"]
    assert set(savings["rollout_s"]) == {"refilled", "waves"}
    assert set(savings["update_s"]) == {
        "all",
        "without_skipping",
        "without_packing",
        "without_prompt_sharing",
        "none",
    }
    # In float32, few tokens and a tiny model no sum is near enough to a border to flip one.
    assert (savings["differing_responses"], savings["responses"]) == (0, 24)
    # Times decide nothing here; steps are no times.
    assert savings["decode_steps"]["refilled"] < savings["decode_steps"]["waves"]


@pytest.mark.slow
def test_adapters_are_timed_instead_of_all_weights(monkeypatch, capsys):
    sizes = {"prompts": 2, "generations": 2, "prompt_len": 8, "completion_len": 6}
    result = run(monkeypatch, capsys, **sizes, warmup=1, steps=1, **{"lora.rank": 2})
    # Of q, k, v, o [32, 32, 16 .. 32], gate, up and down, in one layer.
    assert result["config"]["lora"]["rank"] == 2
    assert 0 < result["adapter_params"] < result["params"] / 10
    assert result["step_s_median"] > 0


@pytest.mark.slow
def test_decoding_in_8_bits_is_timed(monkeypatch, capsys):
    sizes = {"prompts": 2, "generations": 2, "prompt_len": 8, "completion_len": 8}
    found = run(
        monkeypatch, capsys, **sizes, steps=1, warmup=1, weights_dtype="int8", cache_dtype="int8"
    )
    assert found["share"]["rollout"] > 0
    rounded, plain = (
        BenchConfig(**TINY, **sizes, **which).train
        for which in ({"weights_dtype": "int8", "cache_dtype": "int8"}, {})
    )
    # As a run must have it: tokens are weighed.
    assert rounded.rollout.rounded
    assert rounded.loss.tis_cap == 2
    assert plain.loss.tis_cap is None


def test_exact_batches_are_exact_and_realistic_ones_long_tailed_with_few_effective_groups():
    exact = make_batch(BenchConfig(**TINY), 0)
    assert {len(q.token_ids) for q in exact.questions} == {64}
    assert set(exact.limits) == {64}
    config = BenchConfig(
        **TINY, workload="realistic", prompts=200, generations=8, prompt_len=96, completion_len=384
    )
    batch = make_batch(config, 3)
    again, other = make_batch(config, 3), make_batch(config, 4)
    np.testing.assert_array_equal(batch.limits, again.limits)
    assert (batch.limits != other.limits).any()
    assert {48 <= len(q.token_ids) <= 96 for q in batch.questions} == {True}
    rewards = batch.rewards.reshape(200, 8)
    assert (rewards.min(1) != rewards.max(1)).sum() == 60
    # The median is a sixth of the longest, some are cut, groups are alike.
    assert 54 < np.median(batch.limits) < 76
    assert 0.003 < (batch.limits == 384).mean() < 0.05
    logs = np.log(batch.limits.reshape(200, 8))
    assert 0.25 < logs.mean(1).var() / logs.var() < 0.6


def test_named_shapes_are_those_of_the_models_they_name():
    millions = {name: round(count_parameters(shape) / 1e6) for name, shape in SHAPES.items()}
    assert millions == {
        "smollm2-135m": 135,
        "small": 1,
        "llama-3.2-1b": 1236,
        "llama-3.2-3b": 3213,
        "llama-3.1-8b": 8030,
        "llama-3.1-70b": 70554,
    }
    # A given size goes before the named one, and then the width of a head follows.
    assert BenchConfig(shape="small", hidden=64).model.head_dim == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 100}, "9 heads do not divide --hidden 100"),
        ({"kv_heads": 2}, "9 heads are no multiple of 2"),
        ({"steps": 0}, "--steps is 0: expected at least 1"),
        ({"effective": 1.5}, "--effective 1.5: expected a share"),
    ],
)
def test_bad_sizes_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        BenchConfig(**settings)


def test_an_unknown_flag_names_the_nearest(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--stepz", "3"])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 2
    assert "Did you mean '--steps'" in capsys.readouterr().err
