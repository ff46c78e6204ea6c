"""The update: its gradient is that of the plain objective, however the work is cut up.

Compiling is nearly all the time that these tests take: they share batches, shapes and settings.
"""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import plans
import pytest
from helpers import TINY, gathered, make_objective, mesh_like, on_mesh
from jax.sharding import NamedSharding, PartitionSpec
from tiny_rollouts import (
    GROUP,
    LENGTH,
    PROMPTS,
    response_logits,
    sample,
    sampled,
    split_weights,
    weights,
    whole_rows,
)

from alphamed_jax.compiled import costs
from alphamed_jax.config import LossConfig, OptimizerConfig
from alphamed_jax.model.mesh import data_shards, mesh_of
from alphamed_jax.programs.planned import PlannedStep, StepShape
from alphamed_jax.rl.batch import plan_batch
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.optimizer import learning_rate
from alphamed_jax.rl.update import (
    batch_gradient,
    init_state,
    score,
    state_shardings,
    update,
)

OBJECTIVE = make_objective(optimizer=OptimizerConfig(learning_rate=3e-2, warmup_updates=0))
# One group of four is ineffective.
ADVANTAGES = np.random.default_rng(0).normal(size=(len(PROMPTS), GROUP)).astype(np.float32)
ADVANTAGES[0] = 0.0

compiled_gradient = jax.jit(batch_gradient, static_argnums=4)


@jax.jit
@jax.value_and_grad
def plain_objective(params, rows, starts, tokens, token_weights):
    """Minus the weighted sum of on-policy ratios, from the logits of whole rows."""
    logits = response_logits(params, rows, starts)
    logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=2)[..., 0]
    return -(token_weights * jnp.exp(logprobs - jax.lax.stop_gradient(logprobs))).sum()


@functools.cache
def plain(aggregation="token_mean"):
    """Value and gradient of the textbook loss; its weights are written out in NumPy."""
    trajectories = sampled()
    lengths = np.asarray(trajectories.lengths)
    divisors = {
        "token_mean": np.full(len(lengths), lengths.sum()),
        "sequence_mean": len(lengths) * lengths,
        "constant": np.full(len(lengths), len(lengths) * OBJECTIVE.loss.constant_length),
    }[aggregation]
    mask = np.arange(LENGTH) < lengths[:, None]
    token_weights = np.float32(mask * (ADVANTAGES.reshape(-1) / divisors)[:, None])
    rows, starts = whole_rows(trajectories)
    return plain_objective(weights(), rows, starts, trajectories.tokens, token_weights)


def prepared(
    trajectories=None, advantages=ADVANTAGES, micro_batch=8, skip=True, pack=False, share=True
):
    """Batch, number of micro-batches and totals, on the mesh of the trajectories."""
    trajectories = trajectories or sampled()
    lengths = np.asarray(trajectories.lengths).reshape(advantages.shape)
    planned = plan_batch(
        np.asarray(trajectories.prompt_lengths),
        lengths,
        advantages,
        micro_batch=micro_batch,
        data_shards=data_shards(mesh_of(trajectories)),
        only_effective=skip,
        pack=pack,
        share_prompts=share,
    )
    totals = Totals(jnp.float32(planned.tokens), jnp.float32(planned.sequences))
    return gathered(trajectories, lengths, advantages, planned), jnp.int32(planned.count), totals


def gradient_of(batch, count, totals, objective=OBJECTIVE, params=None):
    params = weights() if params is None else params
    with jax.set_mesh(mesh_of(params)):
        return compiled_gradient(params, batch, count, totals, objective)


def our_gradient(objective=OBJECTIVE, **options):
    return gradient_of(*prepared(**options), objective)


def assert_close(tree, expected, tolerance=1e-5):
    for path, leaf in jax.tree.leaves_with_path(tree):
        other = expected
        for step in path:
            other = other[step.key]
        scale = np.abs(np.asarray(other)).max() + 1e-6
        np.testing.assert_allclose(
            np.asarray(leaf), np.asarray(other), atol=tolerance * scale, err_msg=str(path)
        )


# The gradient


# Micro-batches of two groups, of half a group, of one response: all of unequal numbers of tokens.
# A row of the table costs one compilation, so aggregations and ways to compute are dealt to them.
@pytest.mark.parametrize(
    ("micro_batch", "pack", "aggregation", "compute"),
    [
        (8, False, "token_mean", {}),
        (2, True, "sequence_mean", {"remat": "layer", "logits_chunk": 16}),
        (1, False, "constant", {"remat": "dots", "logits_chunk": 5}),
        (8, True, "token_mean", {}),
    ],
)
def test_gradient_is_the_plain_one_however_it_is_cut_up_and_computed(
    micro_batch, pack, aggregation, compute
):
    value, expected = plain(aggregation)
    objective = OBJECTIVE
    if compute:
        objective = make_objective(loss=LossConfig(aggregation=aggregation), **compute)
    grads, sums = our_gradient(micro_batch=micro_batch, pack=pack, objective=objective)
    assert_close(grads, expected)
    np.testing.assert_allclose(sums["loss/policy"], value, rtol=1e-5)
    assert sums["sampler_gap/max"] < 1e-4


def test_packing_puts_several_responses_into_a_row():
    # The case above means something: 12 responses of effective groups lie in fewer rows.
    batch, _, _ = prepared(pack=True)
    rows = (np.asarray(batch.packing.source) >= 0).any(axis=-1).sum()
    assert rows < (np.asarray(batch.lengths) > 0).sum() == 12
    # And without sharing, each response has its own prompt.
    batch, count, _ = prepared(share=False)
    assert batch.tokens.shape[2] == 1
    assert count == 2


# All rows on an axis of their own; and all three axes at once.
@pytest.mark.parametrize(("mesh", "pack"), [("8x1", False), ("2x2x2", True)])
def test_gradient_is_the_same_on_any_mesh(mesh, pack):
    params = split_weights(mesh)
    everywhere = NamedSharding(mesh_of(params), PartitionSpec())
    batch = prepared(jax.device_put(sampled(), everywhere), pack=pack)
    grads, _ = gradient_of(*batch, params=params)
    assert_close(grads, plain()[1])


@pytest.mark.slow
def test_products_that_wait_at_the_host_give_the_same_gradient_on_a_mesh():
    params = split_weights("2x2x2")
    everywhere = NamedSharding(mesh_of(params), PartitionSpec())
    batch = prepared(jax.device_put(sampled(), everywhere), pack=True)
    grads, _ = gradient_of(*batch, make_objective(remat="offload"), params)
    assert_close(grads, plain()[1])


def test_a_batch_without_effective_groups_computes_no_product():
    # Given the update's program, whose micro-batches are counted at run time,
    shape = StepShape(prompts=8, group=4, prompt_width=64, response=64, micro_batch=4)
    step = PlannedStep(TINY, mesh_like("1x1"), shape, make_objective(remat="layer"))
    text = plans.named("update").lower(step).compile().as_text()
    # then none of the model's products is outside of their loop.
    assert costs.matmul_flops(text, unknown_trips=0) == 0
    assert costs.matmul_flops(text, unknown_trips=1) > 0


def test_ineffective_groups_change_nothing_when_left_out():
    skipped, few = our_gradient(skip=True)
    full, many = our_gradient(skip=False)
    assert few["tokens/trained"] < many["tokens/trained"]
    assert_close(skipped, full)


def test_rows_that_are_all_padding_leave_the_gradient_finite():
    batch, count, totals = prepared()
    empty = batch._replace(lengths=jnp.zeros_like(batch.lengths))
    grads, sums = gradient_of(empty, count, totals)
    assert int(sums["tokens/trained"]) == 0
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grads))


def test_mask_is_the_lengths_whatever_ids_stand_there():
    # Given responses whose padding is filled with other ids, some of them stop ids,
    batch, count, totals = prepared()
    within = jnp.arange(batch.tokens.shape[-1]) < batch.lengths[..., None]
    assert not within.all()
    filled = batch._replace(
        tokens=jnp.where(within, batch.tokens, 9),
        sampler_logprobs=jnp.where(within, batch.sampler_logprobs, jnp.nan),
    )
    # then the gradient is the same.
    grads, sums = gradient_of(filled, count, totals)
    assert_close(grads, plain()[1])
    assert np.isfinite(sums["sampler_gap/max"])
    # And the id that fills the padding is an ordinary one within the length: it is trained.
    zeros = batch._replace(tokens=jnp.zeros_like(batch.tokens))
    _, sums = gradient_of(zeros, count, totals)
    assert int(sums["tokens/trained"]) == int(batch.lengths.sum())


def test_the_stop_id_is_trained():
    # Given responses of which only the last token, the stop id, has any weight in the loss:
    # the gradient of whole responses less that of responses without their last token.
    batch, count, totals = prepared()
    shorter = batch._replace(lengths=jnp.maximum(batch.lengths - 1, 0))
    whole, all_tokens = gradient_of(batch, count, totals)
    without, fewer = gradient_of(shorter, count, totals)
    assert int(all_tokens["tokens/trained"] - fewer["tokens/trained"]) == (batch.lengths > 0).sum()
    # then it is there, and as large as that of any other token.
    ends = jax.tree.map(jnp.subtract, whole, without)
    assert float(jnp.abs(ends["embed"]).max()) > 0.01 * float(jnp.abs(whole["embed"]).max())


# Sampler and trainer


def test_trainer_agrees_with_sampler_on_logprobs():
    _, sums = our_gradient(skip=False)
    assert int(sums["tokens/trained"]) == int(sampled().lengths.sum())
    assert sums["sampler_gap/max"] < 1e-4
    # A single token on which they did not agree would be seen.
    batch, count, totals = prepared(skip=False)
    moved = batch.sampler_logprobs.at[0, 0, 0, 0].add(0.5)
    _, sums = gradient_of(batch._replace(sampler_logprobs=moved), count, totals)
    np.testing.assert_allclose(sums["sampler_gap/max"], 0.5, atol=1e-4)
    np.testing.assert_allclose(sums["sampler_gap/mean"], 0.5, atol=0.01)


def border_distance(logits, sampling):
    """How far top-p is from keeping one token more or less, as mass; float64, per row."""
    logits = np.asarray(logits, np.float64) / sampling.temperature
    chance = np.exp(logits - logits.max(-1, keepdims=True))
    chance = -np.sort(-chance, axis=-1)
    if sampling.top_k:
        chance = chance[..., : sampling.top_k]
    mass = chance.cumsum(-1) / chance.sum(-1, keepdims=True)
    return np.abs(mass - sampling.top_p).min(-1)


def test_trainer_agrees_with_sampler_under_temperature_and_filters():
    # Given responses drawn from a tempered and filtered distribution,
    sampling = Sampling(temperature=1.3, top_p=0.8, top_k=40)
    drawn = sample(sampling=sampling, seed=5)
    batch, count, _ = prepared(drawn, skip=False)
    # when the trainer scores them,
    logprobs = score(weights(), batch, count, objective=make_objective(sampling=sampling))
    gap = np.abs(np.asarray(logprobs - batch.sampler_logprobs))
    within = np.arange(gap.shape[-1]) < np.asarray(batch.lengths)[..., None]
    # then they agree, but where rounding decides whether top-p keeps a further token: there,
    # and in few places, the log-probability moves by the share of that token.
    distance = border_distance(response_logits(weights(), *whole_rows(drawn)), sampling)
    margins = dataclasses.replace(drawn, logprobs=jnp.asarray(distance, jnp.float32))
    clear = np.asarray(prepared(margins, skip=False)[0].sampler_logprobs) > 1e-5
    assert (within & clear).sum() > 0.95 * within.sum()
    assert gap[within & clear].max() < 1e-4
    assert gap[within].max() < 0.1


# The state


def off_policy():
    """A batch that carries the log-probabilities of the policy that sampled it."""
    batch, count, totals = prepared()
    return batch._replace(old_logprobs=batch.sampler_logprobs), count, totals


def fresh_state():
    """A state of its own, which an update may donate, placed as `train` places it."""
    return init_state(OBJECTIVE, on_mesh(jax.tree.map(jnp.copy, weights()), "1x1"))


@pytest.mark.parametrize("mesh", ["8x1", "2x4", "2x2x2"])
def test_layout_of_the_state_is_that_of_the_weights_as_programs_spell_it(mesh):
    params = split_weights(mesh)
    where = state_shardings(params, OBJECTIVE)
    moments = where.opt_state[1][0]
    for layout in (where.params, moments.mu, moments.nu):
        for leaf, weight in zip(*map(jax.tree.leaves, (layout, params)), strict=True):
            assert leaf.is_equivalent_to(weight.sharding, weight.ndim)
            assert not leaf.spec or leaf.spec[-1] is not None


def test_second_update_on_old_logprobs_clips_and_runs_the_program_of_the_first():
    batch, count, totals = off_policy()
    state, first = update(fresh_state(), batch, count, totals, objective=OBJECTIVE)
    programs = update._cache_size()
    state, second = update(state, batch, count, totals, objective=OBJECTIVE)
    assert float(first["clip/low"] + first["clip/high"]) == 0.0
    assert float(second["clip/low"] + second["clip/high"]) > 0.0
    assert (int(state.updates), int(state.skipped)) == (2, 0)
    assert update._cache_size() == programs


def test_gradient_that_is_not_finite_is_skipped_and_counted():
    batch, count, totals = off_policy()
    batch = batch._replace(advantages=batch.advantages.at[0, 0, 0].set(jnp.nan))
    state = fresh_state()
    before = jax.tree.map(np.array, (state.params, state.opt_state))
    state, metrics = update(state, batch, count, totals, objective=OBJECTIVE)
    assert not np.isfinite(metrics["grad_norm"])
    assert (int(state.updates), int(state.skipped)) == (0, 1)
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), before)


def test_batch_without_effective_groups_has_zero_gradient_and_finite_state():
    # Given a batch of which no group is left,
    batch, _, totals = off_policy()
    nothing = np.zeros((len(PROMPTS), GROUP), np.float32)
    _, count, _ = prepared(advantages=nothing)
    assert count == 0
    state, metrics = update(fresh_state(), batch, count, totals, objective=OBJECTIVE)
    assert metrics["grad_norm"] == 0.0
    assert np.isnan(metrics["entropy"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_batch_without_effective_groups_moves_the_weights_by_what_adam_remembers():
    batch, count, totals = off_policy()
    state, _ = update(fresh_state(), batch, count, totals, objective=OBJECTIVE)
    before = np.asarray(state.params["norm"])
    # When a batch follows of which nothing enters the forward pass,
    state, metrics = update(state, batch, jnp.int32(0), totals, objective=OBJECTIVE)
    # then it is an update with gradient zero.
    assert metrics["grad_norm"] == 0.0
    assert int(state.updates) == 2
    assert (np.asarray(state.params["norm"]) != before).any()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_falling_rate_is_zero_one_update_after_the_last(schedule):
    config = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_updates=4)
    rate = learning_rate(config, 20)
    rates = np.array([float(rate(i)) for i in range(21)])
    np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1, 1], atol=1e-6)
    assert (np.diff(rates[4:]) < 0).all()
    assert rates[19] > 0
    assert rates[20] == pytest.approx(0, abs=1e-6)


# The program


@functools.cache
def lowered_update():
    """The update's program before optimisation, for logits in chunks of 32 tokens."""
    objective = make_objective(logits_chunk=32, remat="layer")
    state, arguments = fresh_state(), prepared(micro_batch=16)
    return update.lower(state, *arguments, objective=objective).as_text(), (state, arguments)


def test_no_array_of_all_logits_exists_in_the_step():
    # Given 16 responses of up to 24 tokens over 320 words, in chunks of 32 tokens,
    program, (_, (batch, *_)) = lowered_update()
    # then no tensor holds a logit for more than a chunk's tokens.
    sizes = set()
    for line in program.split("tensor<")[1:]:
        shape = line.split(">")[0].split("x")[:-1]
        if shape and shape[-1] == "320" and all(part.isdigit() for part in shape):
            sizes.add(int(np.prod([int(part) for part in shape[:-1]])))
    rows = batch.tokens.shape[1] * batch.tokens.shape[2]
    assert max(sizes) <= max(32, rows)
    assert max(sizes) < rows * batch.tokens.shape[3]


def largest_constant(text):
    """Elements of the largest constant in StableHLO text, one value repeated not counted."""
    sizes = [0]
    for line in text.splitlines():
        match = re.search(r"stablehlo\.constant dense(_resource)?<(.*)> : tensor<([^>]*)>", line)
        if match and (match[1] or match[2][0] in '["'):
            sizes.append(math.prod(int(n) for n in match[3].split("x")[:-1]))
    return max(sizes)


def test_weights_are_arguments_not_constants():
    # Given weights whose smallest array has 64 elements,
    program, arguments = lowered_update()
    smallest = min(leaf.size for leaf in jax.tree.leaves(weights()))
    # then no constant of that size is in the program, and nothing was added to its arguments.
    assert largest_constant(program) < smallest
    main = program[program.index("@main(") :].split("->")[0]
    assert 0 < main.count("%arg") <= len(jax.tree.leaves(arguments))


def test_the_measure_of_constants_sees_captured_weights():
    params = weights()

    def captured(token):
        return params["embed"][token] * params["norm"]

    program = jax.jit(captured).lower(jnp.int32(3)).as_text()
    assert largest_constant(program) == params["embed"].size
