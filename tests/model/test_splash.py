"""Splash attention, its kernels interpreted: the same as dense attention, forward and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    Sizes,
    assert_same,
    dense_causal,
    dense_lanes,
    lane_arrays,
    outputs_and_gradients,
    prompt_arrays,
)
from helpers import mesh_like

from alphamed_jax.model import splash

lanes = functools.partial(splash.lanes, interpret=True)
causal = functools.partial(splash.causal, interpret=True)


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(packed=True),
        Sizes(),
        Sizes(heads=4, kv_heads=4, packed=True),
        Sizes(heads=4, kv_heads=1),
        # Two blocks of keys and queries, neither filled.
        Sizes(prompts=1, lanes=1, length=520, prompt_width=530, heads=2, kv_heads=1, packed=True),
    ],
    ids=["packed", "one response a lane", "MHA", "MQA", "several blocks"],
)
def test_lanes_equal_dense_attention_forward_and_gradient(sizes):
    arguments = lane_arrays(sizes)
    expected = outputs_and_gradients(dense_lanes, arguments)
    assert_same(outputs_and_gradients(lanes, arguments), expected)


@pytest.mark.parametrize("length", [24, 600])
def test_prompts_equal_dense_attention_forward_and_gradient(length):
    arguments = prompt_arrays(prompts=1, length=length)
    expected = outputs_and_gradients(dense_causal, arguments)
    assert_same(outputs_and_gradients(causal, arguments), expected)


@pytest.mark.parametrize(
    ("mesh", "prompts"),
    [("2x2x2", 4), ("1x1x8", 2), ("2x4", 2), ("2x2x2", 3)],
    ids=["all axes", "fewer key/value heads than shards", "one of each", "rows that do not divide"],
)
def test_on_a_mesh_each_device_has_its_rows_and_heads(mesh, prompts):
    arguments = lane_arrays(Sizes(prompts=prompts, heads=8, kv_heads=4, packed=True))
    expected = outputs_and_gradients(dense_lanes, arguments)
    with jax.set_mesh(mesh_like(mesh)):
        found = outputs_and_gradients(lanes, arguments)
    assert_same(found, expected)


def test_prompts_on_a_mesh_with_key_value_heads_fewer_than_shards():
    arguments = prompt_arrays(prompts=2, heads=8, kv_heads=2)
    expected = outputs_and_gradients(dense_causal, arguments)
    with jax.set_mesh(mesh_like("2x4")):
        found = outputs_and_gradients(causal, arguments)
    assert_same(found, expected)


def test_a_query_that_sees_no_key_of_the_prompt_attends_to_its_own_with_finite_gradients():
    q, prompt_k, prompt_v, lengths, *own = lane_arrays(Sizes(packed=True))
    arguments = q, prompt_k, prompt_v, lengths.at[0].set(0), *own
    found = outputs_and_gradients(lanes, arguments)
    assert_same(found, outputs_and_gradients(dense_lanes, arguments))
    _, _, d_prompt_k, d_prompt_v, _, _ = found
    assert not np.any(d_prompt_k[0]) and not np.any(d_prompt_v[0])


def test_padding_with_huge_values_reaches_neither_output_nor_gradient():
    q, prompt_k, prompt_v, lengths, own_k, own_v, member = lane_arrays(Sizes(packed=True))
    filler = jnp.arange(prompt_k.shape[1]) >= lengths[:, None]
    weights = np.where(member[..., None, None] < 0, 0.0, np.ones(q.shape))
    results = []
    for value in (0.0, 1e4):
        k, v = (jnp.where(filler[..., None, None], value, x) for x in (prompt_k, prompt_v))
        padded_own = jnp.where(member[..., None, None] < 0, value, own_k)
        given = q, k, v, lengths, padded_own, own_v, member
        results.append(outputs_and_gradients(lanes, given, weights))
    for a, b in zip(*results, strict=True):
        assert np.isfinite(b).all()
        if a.shape == q.shape:
            a, b = (x * weights for x in (a, b))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("length", [1, 127, 128, 384, 512, 513, 640, 768, 1024, 1536, 3000, 8192])
def test_blocks_are_whole_tiles_that_cover_the_sequence_with_little_padding(length):
    block, padded = splash.block_of(length)
    assert block % 128 == 0 and block <= splash.BLOCK and padded % block == 0
    assert 0 <= padded - length < 128 * padded // block


def test_buckets_of_rollouts_are_not_padded():
    for length in (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096):
        assert splash.block_of(length)[1] == length


def kernel_calls(function, *arguments):
    """How often each kernel is called in the traced gradient."""
    text = str(jax.make_jaxpr(jax.grad(lambda *x: function(*x).sum(), argnums=(0, 1, 2)))(*arguments))
    return text.count("name=splash_mha_fwd"), text.count("name=splash_mha_dkv")


def test_forward_kernels_run_once_and_once_more_where_the_layer_is_recomputed():
    arguments = prompt_arrays(prompts=1)
    assert kernel_calls(causal, *arguments) == (1, 1)
    assert kernel_calls(jax.checkpoint(causal), *arguments) == (2, 1)
