"""Dense attention: what is written out plainly, forward and gradient, and a step of decoding."""

import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    Sizes,
    assert_same,
    outputs_and_gradients,
    plain_causal,
    plain_prefix,
    prefix_arrays,
    prompt_arrays,
)

from alphamed_jax.model.dense import (
    causal_attention,
    prefix_attention,
    prefix_decode,
    to_cache,
)
from alphamed_jax.model.masks import causal_mask, ring_mask, valid_mask


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_sequence_sees_itself_causally(kv_heads):
    arguments = prompt_arrays(kv_heads=kv_heads)
    expected = outputs_and_gradients(plain_causal, arguments)
    assert_same(outputs_and_gradients(causal_attention, arguments), expected)


@pytest.mark.parametrize("packed", [False, True])
def test_packed_rows_see_their_prompt_and_their_segment(packed):
    arguments = prefix_arrays(Sizes(packed=packed))
    expected = outputs_and_gradients(plain_prefix, arguments)
    assert_same(outputs_and_gradients(prefix_attention, arguments), expected)


def test_a_step_of_decoding_is_the_last_token_of_a_row():
    given = prefix_arrays(Sizes())
    expected = prefix_attention(**given)[:, :, -1]
    own = [to_cache(given[name]).reshape(4, 2, 24, 8) for name in ("own_k", "own_v")]
    found = prefix_decode(
        given["q"][:, :, -1],
        to_cache(given["prompt_k"]),
        to_cache(given["prompt_v"]),
        valid_mask(given["prompt_lengths"], 16),
        *own,
        jnp.ones((4, 24), bool),
    )
    np.testing.assert_allclose(found, expected, 1e-5, 1e-5)


def test_masks():
    segments = jnp.asarray([[0, 0, 1]])
    np.testing.assert_array_equal(causal_mask(2), [[True, False], [True, True]])
    np.testing.assert_array_equal(
        causal_mask(3, segments)[0],
        [[True, False, False], [True, True, False], [False, False, True]],
    )
    np.testing.assert_array_equal(valid_mask(jnp.asarray([1, 0]), 2), [[True, False], [False] * 2])
    # Written at 1 last: a response of two tokens owns places 0 and 1, one of three 3 as well.
    np.testing.assert_array_equal(
        ring_mask(jnp.int32(1), jnp.asarray([2, 3]), 4),
        [[True, True, False, False], [True, True, False, True]],
    )
