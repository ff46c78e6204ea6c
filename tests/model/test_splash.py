"""Splash attention, its kernels interpreted: the same as dense attention, forward and gradient."""

import functools

import jax
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
from helpers import mesh_like

from alphamed_jax.model import splash

prefix = functools.partial(splash.prefix_attention, emulated=True)
causal = functools.partial(splash.causal_attention, emulated=True)


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(packed=True),
        # Two blocks of keys and queries, neither filled.
        Sizes(prompts=1, rows=1, length=520, prompt_width=530, heads=2, kv_heads=1),
    ],
    ids=["several responses a row, grouped queries", "several blocks, one key/value head"],
)
def test_packed_rows_equal_dense_attention_forward_and_gradient(sizes):
    arguments = prefix_arrays(sizes)
    expected = outputs_and_gradients(plain_prefix, arguments)
    assert_same(outputs_and_gradients(prefix, arguments), expected)


def test_prompts_equal_dense_attention_forward_and_gradient():
    arguments = prompt_arrays(prompts=1, length=600)
    expected = outputs_and_gradients(plain_causal, arguments)
    assert_same(outputs_and_gradients(causal, arguments), expected)


@pytest.mark.parametrize(
    ("mesh", "prompts", "kv_heads"),
    [("2x2x2", 4, 8), ("1x8", 1, 4), ("2x2x2", 3, 4)],
    ids=["all axes", "fewer key/value heads than shards", "rows that do not divide"],
)
def test_on_a_mesh_each_device_has_its_rows_and_heads(mesh, prompts, kv_heads):
    sizes = Sizes(prompts=prompts, rows=1, heads=8, kv_heads=kv_heads, packed=True)
    arguments = prefix_arrays(sizes)
    expected = outputs_and_gradients(plain_prefix, arguments)
    with jax.set_mesh(mesh_like(mesh)):
        found = outputs_and_gradients(prefix, arguments)
    assert_same(found, expected)


def test_prompts_on_a_mesh_with_key_value_heads_fewer_than_shards():
    arguments = prompt_arrays(prompts=2, heads=8, kv_heads=2)
    expected = outputs_and_gradients(plain_causal, arguments)
    with jax.set_mesh(mesh_like("2x4")):
        found = outputs_and_gradients(causal, arguments)
    assert_same(found, expected)


def test_a_query_that_sees_no_key_of_the_prompt_attends_to_its_own_with_finite_gradients():
    arguments = prefix_arrays(Sizes(packed=True))
    arguments["prompt_lengths"] = arguments["prompt_lengths"].at[0].set(0)
    found = outputs_and_gradients(prefix, arguments)
    assert_same(found, outputs_and_gradients(plain_prefix, arguments))
    assert not np.any(found["prompt_k"][0])
    assert not np.any(found["prompt_v"][0])


def test_padding_with_huge_values_reaches_neither_output_nor_gradient():
    arguments = prefix_arrays(Sizes(packed=True))
    width, lengths = arguments["prompt_k"].shape[1], arguments["prompt_lengths"]
    filler = (jnp.arange(width) >= lengths[:, None])[..., None, None]
    unused = (arguments["segment_ids"] < 0)[..., None, None]
    counted = np.where(unused, 0.0, np.ones(arguments["q"].shape))
    found = []
    for value in (0.0, 1e4):
        given = dict(arguments)
        for name in ("prompt_k", "prompt_v"):
            given[name] = jnp.where(filler, value, given[name])
        for name in ("q", "own_k", "own_v"):
            given[name] = jnp.where(unused, value, given[name])
        found.append(outputs_and_gradients(prefix, given, counted))
    small, huge = found
    for name in small:
        assert np.isfinite(huge[name]).all()
        kept = np.where(unused, 0.0, 1.0) if name == "output" else 1.0
        np.testing.assert_array_equal(small[name] * kept, huge[name] * kept, err_msg=name)


@pytest.mark.parametrize("length", [1, 127, 128, 384, 512, 513, 640, 768, 1024, 1536, 3000, 8192])
def test_blocks_are_whole_tiles_that_cover_the_sequence_with_little_padding(length):
    block, padded = splash.block_of(length)
    assert block % 128 == 0
    assert block <= splash.BLOCK
    assert padded % block == 0
    assert 0 <= padded - length < 128 * padded // block


def test_buckets_of_rollouts_are_not_padded():
    for length in (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096):
        assert splash.block_of(length)[1] == length


def kernel_calls(function, *arguments):
    """How often each kernel is called in the traced gradient."""
    gradient = jax.grad(lambda *x: function(*x).sum(), argnums=(0, 1, 2))
    text = str(jax.make_jaxpr(gradient)(*arguments))
    return text.count("name=splash_mha_fwd_residuals"), text.count("name=splash_mha_dkv")


def test_forward_kernels_run_once_and_once_more_where_the_layer_is_recomputed():
    arguments = prompt_arrays(prompts=1).values()
    assert kernel_calls(causal, *arguments) == (1, 1)
    assert kernel_calls(jax.checkpoint(causal), *arguments) == (2, 1)


def test_without_a_gradient_no_log_sum_exps_are_kept():
    text = str(jax.make_jaxpr(causal)(*prompt_arrays(prompts=1).values()))
    assert text.count("name=splash_mha_fwd_no_residuals") == 1
    assert "splash_mha_fwd_residuals" not in text
