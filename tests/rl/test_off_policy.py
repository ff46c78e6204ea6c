"""Several updates on one rollout: the weights are those of the textbook loop, written out here."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import a_policy, on_mesh
from tiny_rollouts import GROUP, LENGTH, PROMPTS, response_logits, sampled, weights, whole_rows

from alphamed_jax.config import Config, LossConfig, OptimizerConfig, RolloutConfig, UpdateConfig
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.rl.mini_batches import update_policy
from alphamed_jax.rl.trajectories import ScoredRollouts
from alphamed_jax.rl.update import init_state

# Steps this long go far enough to clip; three times as long, last digits would grow tenfold.
RATE = 0.1
# Without memory and with eps 1 the step of Adam is g / (|g| + 1): smooth, and easily written out.
OPTIMIZER = OptimizerConfig(
    learning_rate=RATE, warmup_updates=0, b1=0.0, b2=0.0, eps=1.0, max_grad_norm=1e9
)
UPDATES = UpdateConfig(mini_batches=2, epochs=2, micro_batch=8, remat="none")
# Two groups in each mini-batch; one of the four is ineffective.
ADVANTAGES = np.random.default_rng(0).normal(size=(len(PROMPTS), GROUP)).astype(np.float32)
ADVANTAGES[1] = 0.0
MINI_BATCHES = np.arange(len(PROMPTS) * GROUP).reshape(2, -1)

QUESTION = Question("q", "?", ("a", "b"), "A", "made up")
PLAIN = LossConfig()
CISPO = LossConfig(variant="cispo", clip_low=1.0, clip_high=0.1)
ALL_TURNED = LossConfig(
    ratio="sequence", aggregation="sequence_mean", dual_clip=1.5, clip_high=0.1, tis_cap=1.2
)


@functools.cache
def trajectories():
    """The sampled responses, by a sampler whose log-probabilities are not quite the trainer's."""
    found = sampled()
    noise = np.random.default_rng(1).normal(0, 0.2, size=found.logprobs.shape)
    return dataclasses.replace(found, logprobs=found.logprobs + jnp.asarray(noise, jnp.float32))


@functools.cache
def learned(loss):
    """Weights and metrics after 2 mini-batches x 2 epochs by `update_policy`."""
    config = Config(
        rollout=RolloutConfig(prompts=len(PROMPTS), group_size=GROUP, max_new_tokens=LENGTH),
        loss=loss,
        optimizer=OPTIMIZER,
        update=UPDATES,
    )
    policy = a_policy(config)
    nothing, lengths = np.zeros(len(PROMPTS) * GROUP), np.asarray(trajectories().lengths)
    scored = ScoredRollouts(
        tokens=np.asarray(trajectories().tokens),
        lengths=lengths,
        finished=lengths < LENGTH,
        extracted=nothing.astype(np.int32),
        rewards=nothing,
        advantages=ADVANTAGES.reshape(-1),
        options=nothing.astype(np.int32),
        questions=tuple(Prompt(QUESTION, ids) for ids in PROMPTS),
    )
    state = init_state(policy.objective(config), on_mesh(jax.tree.map(jnp.copy, weights()), "1x1"))
    with jax.set_mesh(policy.mesh):
        state, metrics = update_policy(policy, config, state, None, trajectories(), scored)
    assert int(state.updates) == 4
    return jax.tree.map(np.asarray, state.params), metrics


def response_logprobs(params):
    """Log-probabilities [B T] of all responses, from the logits of whole rows."""
    logits = response_logits(params, *whole_rows(trajectories()))
    tokens = trajectories().tokens[..., None]
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens, axis=2)[..., 0]


def textbook_loss(params, old, rows, loss):
    """The objective on the responses `rows` of a mini-batch, term by term."""
    gain = jnp.asarray(ADVANTAGES.reshape(-1))[rows, None]
    lengths = trajectories().lengths[rows, None]
    mask = jnp.arange(LENGTH) < lengths
    log_ratio = jnp.where(mask, (response_logprobs(params) - old)[rows], 0.0)
    if loss.ratio == "sequence":
        log_ratio = log_ratio.sum(1, keepdims=True) / lengths
    ratio = jnp.exp(log_ratio)
    gained = jnp.minimum(
        ratio * gain, jnp.clip(ratio, 1 - loss.clip_low, 1 + loss.clip_high) * gain
    )
    if loss.variant == "cispo":
        weight = jax.lax.stop_gradient(jnp.clip(ratio, 1 - loss.clip_low, 1 + loss.clip_high))
        gained = weight * gain * jnp.where(mask, response_logprobs(params)[rows], 0.0)
    if loss.dual_clip is not None:
        gained = jnp.where(gain < 0, jnp.maximum(gained, loss.dual_clip * gain), gained)
    if loss.tis_cap is not None:
        gap = jnp.where(mask, (old - trajectories().logprobs)[rows], 0.0)
        gained = gained * jnp.minimum(jnp.exp(gap), loss.tis_cap)
    summed = jnp.where(mask, gained, 0.0)
    if loss.aggregation == "token_mean":
        return -summed.sum() / lengths.sum()
    return -(summed.sum(1, keepdims=True) / lengths).mean()


@functools.cache
def textbook(loss, refresh=False):
    """Weights after the same four updates; `refresh` takes old log-probabilities anew in each."""
    gradient = jax.jit(jax.grad(textbook_loss), static_argnums=3)
    scored = jax.jit(response_logprobs)
    params = weights()
    old = scored(params)
    for _ in range(UPDATES.epochs):
        for rows in MINI_BATCHES:
            grads = gradient(params, scored(params) if refresh else old, rows, loss)
            params = jax.tree.map(lambda w, g: w - RATE * g / (jnp.abs(g) + 1), params, grads)
    return params


def distance(a, b):
    """Largest difference of two trees, relative to how far `b` is from where training began."""
    largest = [
        max(float(jnp.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in ((a, b), (b, weights()))
    ]
    return largest[0] / largest[1]


@pytest.mark.parametrize("loss", [PLAIN, CISPO, ALL_TURNED], ids=["plain", "cispo", "all turned"])
def test_two_mini_batches_twice_are_the_textbook_loop(loss):
    params, metrics = learned(loss)
    # Last digits end in 2e-5; the variants are far apart.
    assert distance(params, textbook(loss)) < 1e-4
    # The later updates are off the policy that sampled, and some of their tokens are clipped.
    assert metrics["clip/low"] + metrics["clip/high"] > 0.02
    assert abs(metrics["ratio/mean"] - 1) > 1e-3


@pytest.mark.parametrize("loss", [PLAIN, ALL_TURNED], ids=["plain", "all turned"])
def test_old_logprobs_are_those_before_the_first_update(loss):
    # With log-probabilities taken anew before each update, the weights would be others.
    params, _ = learned(loss)
    assert distance(params, textbook(loss, refresh=True)) > 1e-2


def test_weights_between_sampler_and_trainer_change_what_is_learned():
    _, plain = learned(PLAIN)
    assert (plain["tis/weight"], plain["tis/truncated"]) == (1.0, 0.0)
    _, metrics = learned(ALL_TURNED)
    assert 0.05 < metrics["tis/truncated"] < 0.5
    gap = np.asarray(jax.jit(response_logprobs)(weights()) - trajectories().logprobs)
    # Over the tokens that were trained, the same in both epochs; a mean over the mini-batches.
    mask = np.arange(LENGTH) < np.asarray(trajectories().lengths)[:, None]
    mask &= (ADVANTAGES.reshape(-1) != 0)[:, None]
    trust = np.minimum(np.exp(gap), ALL_TURNED.tis_cap)
    expected = np.mean([trust[rows][mask[rows]].mean() for rows in MINI_BATCHES])
    np.testing.assert_allclose(metrics["tis/weight"], expected, rtol=1e-4)
