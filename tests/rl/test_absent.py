"""Ids without a token have no part in the distribution: never sampled, never trained on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, gathered, make_objective, on_mesh, tiny_params
from hypothesis import given
from hypothesis import strategies as st
from tiny_rollouts import GROUP, LENGTH, PROMPTS, padded_stops

from alphamed_jax.model.mesh import data_shards, mesh_of
from alphamed_jax.rl.batch import plan_batch
from alphamed_jax.rl.distribution import Sampling, absent_ids, draw, logprobs_and_entropy
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.rollout import generate
from alphamed_jax.rl.update import batch_gradient

V = TINY.vocab_size
# Some at the end, as Qwen2.5 has, a gap, and the first.
KNOWN = ~np.isin(np.arange(V), [0, 77, 78, *range(V - 23, V)])
MODEL = dataclasses.replace(TINY, tie_embeddings=False)
WAYS = [Sampling(), Sampling(1.3, top_p=0.7, top_k=40), Sampling(top_k=V - 1)]

compiled_draw = functools.partial(jax.jit, static_argnums=(2, 4))(draw)
compiled_gradient = jax.jit(batch_gradient, static_argnums=4)


@given(known=st.lists(st.booleans(), min_size=1, max_size=40).filter(any).map(np.array))
def test_ranges_say_what_the_mask_says(known):
    rebuilt = np.ones(len(known), bool)
    for first, end in absent_ids(known):
        assert first < end
        rebuilt[first:end] = False
    np.testing.assert_array_equal(rebuilt, known)


def test_where_every_id_has_a_token_nothing_is_added():
    assert absent_ids(None) == absent_ids(np.ones(V, bool)) == ()
    with pytest.raises(ValueError, match="no id has a token"):
        absent_ids(np.zeros(V, bool))


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("sampling", WAYS)
@pytest.mark.parametrize("vocabulary_first", [False, True])
def test_a_huge_logit_of_an_id_without_a_token_is_never_drawn(sampling, greedy, vocabulary_first):
    # Given logits that are largest, even infinite, where there is no token,
    rows = 512
    logits = np.random.default_rng(0).normal(size=(rows, V)).astype(np.float32)
    logits[:, ~KNOWN] = 1e4
    logits[::2, 77] = np.inf
    sampling = dataclasses.replace(sampling, absent=absent_ids(KNOWN))
    keys = jax.random.split(jax.random.key(1), rows)
    given = jnp.asarray(logits.T if vocabulary_first else logits)
    # when tokens are drawn, then all of them are tokens,
    found, logprobs = compiled_draw(keys, given, sampling, jnp.full(rows, greedy), vocabulary_first)
    assert KNOWN[found].all()
    if greedy:
        best = np.where(KNOWN, logits, -np.inf).argmax(-1)
        np.testing.assert_array_equal(found, best)
        return
    # and their log-probabilities are those of the tokens alone, in the trainer, too.
    of_trainer, entropy = logprobs_and_entropy(jnp.asarray(logits), found, sampling)
    np.testing.assert_allclose(logprobs, of_trainer, atol=1e-5)
    alone = jnp.asarray(logits[:, KNOWN])
    ids = jnp.asarray(np.cumsum(KNOWN) - 1)[found]
    of_tokens, entropies = logprobs_and_entropy(
        alone, ids, dataclasses.replace(sampling, absent=())
    )
    np.testing.assert_allclose(of_trainer, of_tokens, atol=1e-5)
    np.testing.assert_allclose(entropy, entropies, atol=1e-4)


@functools.cache
def weights(mesh="1x1"):
    """A model that likes nothing more than ids without a token."""
    params = jax.jit(functools.partial(tiny_params, MODEL))()
    head = jnp.where(jnp.asarray(KNOWN), params["head"], 30 * params["head"])
    params = params | {"head": head}
    return params if mesh == "1x1" else on_mesh(params, mesh, MODEL)


@functools.cache
def responses(mesh="1x1", known=True, temperature=1.0):
    return generate(
        MODEL,
        weights(mesh),
        PROMPTS,
        group_size=GROUP,
        max_new_tokens=LENGTH,
        temperature=temperature,
        stop_ids=padded_stops((5, 9)),
        key=jax.random.key(0),
        known=KNOWN if known else None,
    )


def tokens_of(trajectories):
    within = np.arange(LENGTH) < np.asarray(trajectories.lengths)[:, None]
    return np.asarray(trajectories.tokens)[within]


def test_rollouts_hold_tokens_alone_on_any_mesh():
    assert not KNOWN[tokens_of(responses(known=False))].all()
    for drawn in (responses(), responses(temperature=0.0), responses("2x4")):
        assert KNOWN[tokens_of(drawn)].all()
    np.testing.assert_array_equal(responses("2x4").tokens, responses().tokens)


@pytest.mark.parametrize("mesh", ["1x1", "2x4"])
def test_the_trainer_agrees_and_leaves_rows_without_a_token_alone(mesh):
    # Given responses of such a model, whose head is split over the vocabulary or whole,
    drawn, params = responses(mesh), weights(mesh)
    advantages = np.random.default_rng(0).normal(size=(len(PROMPTS), GROUP)).astype(np.float32)
    lengths = np.asarray(drawn.lengths).reshape(advantages.shape)
    planned = plan_batch(
        np.asarray(drawn.prompt_lengths),
        lengths,
        advantages,
        micro_batch=8,
        data_shards=data_shards(mesh_of(params)),
        only_effective=True,
    )
    settings = make_objective(MODEL, sampling=Sampling(absent=absent_ids(KNOWN)), logits_chunk=32)
    totals = Totals(jnp.float32(planned.tokens), jnp.float32(planned.sequences))
    batch = gathered(drawn, lengths, advantages, planned)
    with jax.set_mesh(mesh_of(params)):
        grads, sums = compiled_gradient(params, batch, jnp.int32(planned.count), totals, settings)
    # then the trainer's log-probabilities are the sampler's, and those rows have no gradient.
    assert sums["sampler_gap/max"] < 1e-4
    head = np.asarray(grads["head"])
    assert (head[:, ~KNOWN] == 0).all()
    assert (head[:, KNOWN] != 0).any(axis=0).all()
