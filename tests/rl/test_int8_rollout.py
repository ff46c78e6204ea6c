"""Sampling from weights and caches in 8 bits: the same samples everywhere, near the policy's."""

import jax
import numpy as np
import pytest
from helpers import TINY
from tiny_rollouts import (
    LENGTH,
    NO_STOP,
    ROWS,
    sample,
    sampled,
    split_weights,
    weights,
    whole_rows,
)
from tiny_rollouts import response_logits as logits_of_rows

from alphamed_jax.rl import decode as engine
from alphamed_jax.rl.language_model import Transformer

BOTH = {"int8_weights": True, "int8_cache": True}


def policy_logprobs(found):
    """Log-probabilities of what was sampled under the policy as it is."""
    rows, starts = whole_rows(found)
    every = np.asarray(jax.nn.log_softmax(logits_of_rows(weights(), rows, starts)))
    return np.take_along_axis(every, np.asarray(found.tokens)[..., None], axis=2)[..., 0]


@pytest.mark.parametrize(
    "names", [(*BOTH,), *(pytest.param((name,), marks=pytest.mark.slow) for name in BOTH)]
)
def test_what_is_sampled_is_near_the_policy_and_not_the_policy(names):
    found = sample(stop_ids=NO_STOP, **dict.fromkeys(names, True))
    gap = np.abs(np.asarray(found.logprobs) - policy_logprobs(found))
    assert 1e-3 < gap.mean() < 0.05
    # The first token follows from the prompt alone, which no cache in 8 bits has touched.
    assert (gap[:, 0].max() > 1e-4) == ("int8_weights" in names)


def assert_nearly_the_same(found, expected):
    """A sum that rounds differently by the mesh may now and then move one of 255 steps."""
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    off = np.abs(np.asarray(found.logprobs) - expected.logprobs)
    assert off.max() < 1e-2
    assert np.median(off) < 1e-5


@pytest.mark.parametrize(
    ("mesh", "how"),
    [
        ("4x2", {}),
        pytest.param("4x2", {"slots": 8}, marks=pytest.mark.slow),
        pytest.param("2x2x2", {"sharded": True}, marks=pytest.mark.slow),
    ],
)
def test_samples_are_the_same_on_any_mesh_and_in_any_slots(mesh, how):
    alone = sample(**BOTH)
    assert (np.asarray(alone.tokens) != sampled().tokens).any()
    assert_nearly_the_same(sample(split_weights(mesh), **BOTH, **how), alone)


def test_caches_take_the_bytes_of_8_bits_and_scales_and_grow_in_place():
    def state_of(int8_cache, capacity):
        model = Transformer(TINY, np.dtype("float32"), int8_cache=int8_cache)
        sizes = {"slots": ROWS, "rows": ROWS, "length": LENGTH, "prompt_width": None}
        return jax.eval_shape(
            lambda: engine.init_decode_state(model, data_shards=1, capacity=capacity, **sizes)
        )[0]

    def size(state):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.caches))

    plain, rounded = state_of(False, 16), state_of(True, 16)
    assert size(rounded) * 4 * TINY.head_dim == size(plain) * (TINY.head_dim + 4)
    grown = jax.eval_shape(lambda s: engine.grow_cache(s, capacity=32), rounded)
    assert jax.tree.structure(grown) == jax.tree.structure(rounded)
    assert grown.caches.capacity == 32
    assert size(grown) == 2 * size(rounded)


def test_a_response_longer_than_its_caches_goes_on_where_it_was():
    # Given a decode state whose ring of places has turned,
    model = Transformer(TINY, np.dtype("float32"), int8_cache=True)
    made = jax.tree.map(
        lambda x: jax.random.randint(jax.random.key(x.ndim), x.shape, 1, 99).astype(x.dtype),
        (model.empty_cache(2, 16),) * 2,
    )
    state, _ = engine.init_decode_state(
        model, data_shards=1, slots=2, rows=2, length=64, capacity=16, prompt_width=None
    )
    caches = state.caches._replace(keys=made, values=made)
    turned = state._replace(caches=caches, cursor=np.int32(5))
    # when it grows, then each token's 8 bits and scale stand at the same place, oldest first.
    grown = engine.grow_cache(turned, capacity=24)
    for ours, before in zip(jax.tree.leaves(grown.caches), jax.tree.leaves(caches), strict=True):
        np.testing.assert_array_equal(ours[:, :, :16], np.roll(before, -5, axis=2))
        assert not ours[:, :, 16:].any()
