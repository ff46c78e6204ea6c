"""The update: its gradient is that of the plain objective, however the work is cut up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, make_settings, on_mesh, tiny_params

from alphamed_jax.config import LossConfig, OptimizerConfig
from alphamed_jax.model import llama
from alphamed_jax.model.mesh import data_rows, mesh_of
from alphamed_jax.rl.batch import gather, plan
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.loss import Totals, policy_loss
from alphamed_jax.rl.rollout import generate
from alphamed_jax.rl.update import batch_gradient, init_state, score, update

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10] * 20, [11, 12]]
GROUP = 4
STOPS = [5, 9, 17, 100, 233]


@pytest.fixture(scope="module")
def params():
    return tiny_params()


@pytest.fixture(scope="module")
def trajectories(params):
    return generate(
        TINY,
        params,
        PROMPTS,
        group_size=GROUP,
        max_new_tokens=24,
        stop_ids=STOPS,
        key=jax.random.key(3),
    )


@pytest.fixture(scope="module")
def advantages():
    """One group of four is constant and so without signal."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(PROMPTS), GROUP)).astype(np.float32)
    values[2] = 0.0
    return values


def full_rows(trajectories):
    """Every response after its own copy of the prompt: token ids, and where prediction starts."""
    tokens = np.asarray(trajectories.tokens)
    rows = np.zeros((len(tokens), 20 + tokens.shape[1]), np.int32)
    starts = np.array([len(PROMPTS[b // GROUP]) - 1 for b in range(len(tokens))])
    for b, start in enumerate(starts):
        rows[b, : start + 1] = PROMPTS[b // GROUP]
        rows[b, start + 1 : start + 1 + tokens.shape[1]] = tokens[b]
    return rows, starts


@functools.partial(jax.jit, static_argnums=(4,))
def plain_objective(params, rows, starts, advantages, loss, tokens, lengths):
    """The textbook loss, from the logits of whole rows."""
    at = starts[:, None] + jnp.arange(tokens.shape[1])
    logits = llama.logits(TINY, params, rows)
    logits = jnp.take_along_axis(logits, at[..., None], axis=1)
    logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=2)[..., 0]
    return policy_loss(
        logprobs,
        jax.lax.stop_gradient(logprobs),
        advantages.reshape(-1),
        jnp.arange(tokens.shape[1]) < lengths[:, None],
        clip_low=loss.clip_low,
        clip_high=loss.clip_high,
        aggregation=loss.aggregation,
        constant_length=24,
    )[0]


def plain(params, trajectories, advantages, loss=LossConfig()):
    """Value and gradient of the textbook loss."""
    rows, starts = full_rows(trajectories)
    return jax.value_and_grad(plain_objective)(
        params, rows, starts, advantages, loss, trajectories.tokens, trajectories.lengths
    )


def our_gradient(params, trajectories, advantages, settings, micro_batch, skip=True):
    mesh = mesh_of(params)
    layout = plan(
        np.asarray(trajectories.prompt_lengths),
        np.asarray(trajectories.lengths).reshape(advantages.shape),
        advantages,
        micro_batch=micro_batch,
        rows=data_rows(mesh),
        skip_constant=skip,
    )
    totals = Totals(jnp.float32(layout.tokens), jnp.float32(layout.sequences))
    with jax.set_mesh(mesh):
        batch = gather(trajectories, advantages, layout)
        gradient = jax.jit(batch_gradient, static_argnums=4)
        return gradient(params, batch, layout.count, totals, settings)


def assert_close(tree, expected, tolerance=1e-5):
    for path, leaf in jax.tree.leaves_with_path(tree):
        other = expected
        for step in path:
            other = other[step.key]
        scale = np.abs(np.asarray(other)).max() + 1e-6
        np.testing.assert_allclose(
            np.asarray(leaf), np.asarray(other), atol=tolerance * scale, err_msg=str(path)
        )


@pytest.fixture(scope="module")
def expected(params, trajectories, advantages):
    return plain(params, trajectories, advantages)[1]


@pytest.mark.parametrize("micro_batch", [16, 8, 4, 2, 1])
def test_gradient_is_the_plain_one_for_any_micro_batch(
    params, trajectories, advantages, expected, micro_batch
):
    grads, _ = our_gradient(params, trajectories, advantages, make_settings(), micro_batch)
    assert_close(grads, expected)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_each_aggregation_adds_up_over_unequal_micro_batches(
    params, trajectories, advantages, aggregation
):
    loss = LossConfig(aggregation=aggregation)
    value, expected = plain(params, trajectories, advantages, loss)
    grads, sums = our_gradient(params, trajectories, advantages, make_settings(loss=loss), 2)
    assert_close(grads, expected)
    np.testing.assert_allclose(sums["loss/policy"], value, rtol=1e-5)


def test_groups_without_signal_change_nothing_when_left_out(params, trajectories, advantages):
    settings = make_settings()
    skipped, few = our_gradient(params, trajectories, advantages, settings, 4, skip=True)
    full, many = our_gradient(params, trajectories, advantages, settings, 4, skip=False)
    assert few["tokens/trained"] < many["tokens/trained"]
    assert_close(skipped, full)


@pytest.mark.parametrize("mesh", ["8x1", "2x4", "2x2x2"])
def test_gradient_is_the_same_on_any_mesh(params, trajectories, advantages, expected, mesh):
    split = on_mesh(params, mesh)
    moved = generate(
        TINY,
        split,
        PROMPTS,
        group_size=GROUP,
        max_new_tokens=24,
        stop_ids=STOPS,
        key=jax.random.key(3),
    )
    np.testing.assert_array_equal(moved.tokens, trajectories.tokens)
    grads, _ = our_gradient(split, moved, advantages, make_settings(), 8)
    assert_close(grads, expected)


@pytest.mark.parametrize("remat", ["layer", "dots"])
def test_remat_and_chunked_logits_leave_the_gradient_alone(
    params, trajectories, advantages, expected, remat
):
    settings = make_settings(remat=remat, logits_chunk=16)
    grads, _ = our_gradient(params, trajectories, advantages, settings, 8)
    assert_close(grads, expected)


def test_trainer_agrees_with_sampler_on_logprobs(params, trajectories, advantages):
    _, sums = our_gradient(params, trajectories, advantages, make_settings(), 16, skip=False)
    assert sums["tokens/trained"] == np.asarray(trajectories.lengths).sum()
    assert sums["sampler_gap/max"] < 1e-4


@pytest.mark.parametrize("sampling", [Sampling(0.7), Sampling(1.3, top_p=0.8), Sampling(1.0, 0.9, 12)])
def test_trainer_agrees_with_sampler_under_temperature_and_filters(params, advantages, sampling):
    sampled = generate(
        TINY,
        params,
        PROMPTS,
        group_size=GROUP,
        max_new_tokens=24,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        stop_ids=STOPS,
        key=jax.random.key(5),
    )
    settings = make_settings(sampling=sampling)
    _, sums = our_gradient(params, sampled, advantages, settings, 16, skip=False)
    assert sums["sampler_gap/max"] < 1e-4


def prepared(params, trajectories, advantages, settings, micro_batch=8):
    layout = plan(
        np.asarray(trajectories.prompt_lengths),
        np.asarray(trajectories.lengths).reshape(advantages.shape),
        advantages,
        micro_batch=micro_batch,
        rows=1,
        skip_constant=True,
    )
    totals = Totals(jnp.float32(layout.tokens), jnp.float32(layout.sequences))
    batch = gather(trajectories, advantages, layout)
    state = init_state(settings, jax.tree.map(jnp.copy, params))
    return state, batch, layout.count, totals


def test_second_update_on_old_logprobs_clips(params, trajectories, advantages):
    settings = make_settings(optimizer=OptimizerConfig(learning_rate=3e-2, warmup_updates=0))
    state, batch, count, totals = prepared(params, trajectories, advantages, settings)
    batch = batch._replace(old_logprobs=score(state.params, batch, count, settings=settings))
    state, first = update(state, batch, count, totals, settings=settings)
    state, second = update(state, batch, count, totals, settings=settings)
    assert float(first["clip/low"] + first["clip/high"]) == 0.0
    assert float(second["clip/low"] + second["clip/high"]) > 0.0
    assert int(state.updates) == 2


def test_gradient_that_is_not_finite_is_skipped_and_counted(params, trajectories, advantages):
    settings = make_settings()
    state, batch, count, totals = prepared(params, trajectories, advantages, settings)
    batch = batch._replace(advantages=batch.advantages.at[0, 0, 0].set(jnp.nan))
    before = jax.tree.map(np.asarray, (state.params, state.opt_state))
    state, metrics = update(state, batch, count, totals, settings=settings)
    assert not np.isfinite(metrics["grad_norm"])
    assert (int(state.updates), int(state.skipped)) == (0, 1)
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), before)


def test_batch_without_any_signal_has_zero_gradient_and_finite_state(params, trajectories):
    settings = make_settings()
    nothing = np.zeros((len(PROMPTS), GROUP), np.float32)
    state, batch, count, totals = prepared(params, trajectories, nothing, settings)
    state, metrics = update(state, batch, count, totals, settings=settings)
    assert count == 0
    assert metrics["grad_norm"] == 0.0
    assert np.isnan(metrics["entropy"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_rows_that_are_all_padding_leave_the_gradient_finite(params, trajectories, advantages):
    settings = make_settings()
    _, batch, count, totals = prepared(params, trajectories, advantages, settings)
    empty = batch._replace(lengths=jnp.zeros_like(batch.lengths))
    grads, _ = batch_gradient(params, empty, count, totals, settings)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grads))


def test_no_array_of_all_logits_exists_in_the_step(params, trajectories, advantages):
    # Given 16 responses of up to 24 tokens over 320 words, in chunks of 32 tokens,
    settings = make_settings(logits_chunk=32, remat="layer")
    state, batch, count, totals = prepared(params, trajectories, advantages, settings, 16)
    program = update.lower(state, batch, count, totals, settings=settings).as_text()
    # then no tensor holds a logit for more than a chunk's tokens.
    sizes = set()
    for line in program.split("tensor<")[1:]:
        shape = line.split(">")[0].split("x")[:-1]
        if shape and shape[-1] == "320" and all(part.isdigit() for part in shape):
            sizes.add(int(np.prod([int(part) for part in shape[:-1]])))
    rows = batch.tokens.shape[1] * batch.tokens.shape[2]
    assert max(sizes) <= max(32, rows)
    assert max(sizes) < rows * batch.tokens.shape[3]


def test_weights_are_arguments_not_constants(params, trajectories, advantages):
    settings = make_settings()
    state, batch, count, totals = prepared(params, trajectories, advantages, settings)
    compiled = update.lower(state, batch, count, totals, settings=settings).compile()
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert len(compiled.as_text()) < weights
