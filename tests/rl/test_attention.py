"""Updates and prefill are the same whichever attention computes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, gathered, make_objective
from tiny_rollouts import GROUP, PROMPTS, sampled, split_weights, weights

from alphamed_jax.config import Config, OptimizerConfig, UpdateConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model.attention import Attention
from alphamed_jax.model.mesh import data_shards, mesh_of
from alphamed_jax.rl.batch import plan_batch
from alphamed_jax.rl.buckets import pad_prompts
from alphamed_jax.rl.language_model import Transformer
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.policy import make_compute
from alphamed_jax.rl.prompt_cache import prefill
from alphamed_jax.rl.update import init_state, update

ADVANTAGES = np.random.default_rng(0).normal(size=(len(PROMPTS), GROUP)).astype(np.float32)
EMULATED = Attention("splash", True), Attention("cudnn", True)
OPTIMIZER = OptimizerConfig(learning_rate=3e-2, warmup_updates=0)


def settings_with(how):
    return make_objective(optimizer=OPTIMIZER, remat="layer", attention=how)


def packed_batch(trajectories):
    """Responses packed into rows, in micro-batches with rows that only fill the shape."""
    lengths = np.asarray(trajectories.lengths).reshape(ADVANTAGES.shape)
    planned = plan_batch(
        np.asarray(trajectories.prompt_lengths),
        lengths,
        ADVANTAGES,
        micro_batch=8,
        data_shards=data_shards(mesh_of(trajectories)),
        only_effective=True,
    )
    totals = Totals(jnp.float32(planned.tokens), jnp.float32(planned.sequences))
    return gathered(trajectories, lengths, ADVANTAGES, planned), jnp.int32(planned.count), totals


@functools.cache
def learned(how, mesh="1x1"):
    """State and metrics after an update."""
    trajectories = sampled(mesh)
    params = weights() if mesh == "1x1" else split_weights(mesh)
    settings = settings_with(how)
    batch, count, totals = packed_batch(trajectories)
    with jax.set_mesh(mesh_of(params)):
        state = init_state(settings, jax.tree.map(jnp.copy, params))
        state, metrics = update(state, batch, count, totals, objective=settings)
    assert batch.packing is not None
    return state, metrics


def assert_same_learning(found, expected):
    state, metrics = found
    expected_state, expected_metrics = expected
    assert int(state.skipped) == 0
    # AdamW's first moment is a tenth of the clipped gradient.
    moments, expected_moments = (s.opt_state[1][0].mu for s in (state, expected_state))
    for a, b in zip(*map(jax.tree.leaves, (moments, expected_moments)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
    for name in ("grad_norm", "entropy"):
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-5, err_msg=name)
    # The sampler's log-probabilities are those of dense attention.
    assert metrics["sampler_gap/max"] < 1e-4


@pytest.mark.parametrize("how", EMULATED)
def test_a_packed_update_is_the_same_by_every_attention(how):
    assert_same_learning(learned(how), learned(Attention("dense")))


@pytest.mark.slow
def test_an_update_by_splash_is_the_same_on_a_mesh():
    assert_same_learning(learned(Attention("splash", True), "2x2x2"), learned(Attention("dense")))


def test_prefill_gives_the_same_caches_and_last_states():
    tokens, lengths = pad_prompts(PROMPTS, 1)
    counted = (np.arange(tokens.shape[1]) < lengths[:, None])[:, None, :, None]

    def prefilled(how):
        model = Transformer(TINY, jnp.dtype("float32"), how)
        return prefill(model, weights(), tokens, lengths, width=tokens.shape[1])

    expected = prefilled(Attention("dense"))
    for how in EMULATED:
        found = prefilled(how)
        np.testing.assert_allclose(found.last, expected.last, rtol=1e-4, atol=1e-4)
        ours, theirs = (jax.tree.leaves(x.prompts.caches) for x in (found, expected))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a * counted, b * counted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("platform", "kind"), [("tpu", "splash"), ("gpu", "cudnn")])
def test_a_run_takes_the_attention_of_its_platform_or_the_one_it_is_told(platform, kind):
    made = make_compute(Config(), TINY, platform)
    assert made.attention == Attention(kind)
    told = Config(update=UpdateConfig(attention="dense"))
    assert make_compute(told, TINY, platform).attention == Attention("dense")


def test_an_attention_that_the_platform_does_not_have_is_refused():
    config = Config(update=UpdateConfig(attention="splash"))
    with pytest.raises(UserError, match=r"update\.attention is splash, which needs a TPU"):
        make_compute(config, TINY, "cpu")
