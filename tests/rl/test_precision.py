"""The bfloat16 gradient is as far from float32's as rounding makes it: sums add nothing to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_objective
from precision_cases import MODELS, errors, gradient, weights

from alphamed_jax.model import cudnn, network, splash
from alphamed_jax.model.numerics import add_bias, look_up, rms_norm
from alphamed_jax.rl.chunks import chunked_logprobs
from alphamed_jax.rl.distribution import Sampling

BF16 = jnp.bfloat16
# Share of a leaf's gradient that bfloat16 may turn it by; here it is 1.5 to 4.5 %.
BOUND = 0.05


@functools.cache
def rounded(name, chunk):
    return gradient(name, "bfloat16", logits_chunk=chunk)


@pytest.mark.parametrize("name", ["llama_tied", "qwen2", "qwen3"])
def test_every_leaf_of_the_bfloat16_gradient_is_close_to_float32(name):
    expected = gradient(name, "float32")
    found = errors(rounded(name, 2048), expected)
    assert max(found.values()) < BOUND, found
    assert min(found.values()) > 1e-4  # it was bfloat16 indeed


@pytest.mark.parametrize("name", ["llama_tied", "qwen2", "qwen3"])
def test_the_bfloat16_gradient_does_not_depend_on_the_chunk(name):
    # Given the logits of one place of each response at a time, and of half of the places,
    # then the gradients are the same but for sums in float32.
    found = errors(rounded(name, 32), rounded(name, 2048))
    assert max(found.values()) < 1e-5, found


# Each of these sums thousands of ones: in bfloat16 it would stand still at 256.
MANY = 4096


def test_rows_of_a_table_that_are_looked_up_often_add_up():
    tokens = jnp.zeros((4, MANY // 4), jnp.int32)
    grad = jax.grad(lambda t: look_up(t, tokens, BF16).astype(jnp.float32).sum())
    found = grad(jnp.zeros((3, 2)))
    np.testing.assert_array_equal(found, [[MANY, MANY], [0, 0], [0, 0]])


def test_biases_and_norms_add_up_over_tokens():
    x = jnp.ones((MANY, 2, 4), BF16)
    bias = jax.grad(lambda b: add_bias(x, b).astype(jnp.float32).sum())(jnp.zeros((2, 4)))
    np.testing.assert_array_equal(bias, np.full((2, 4), MANY))
    rows = jnp.ones((MANY, 4), BF16)
    scale = jax.grad(lambda s: rms_norm(rows, s, 1e-9).astype(jnp.float32).sum())(jnp.ones(4))
    np.testing.assert_array_equal(scale, np.full(4, MANY))


def test_norms_and_biases_round_as_numbers_of_16_bits_do():
    x, y = np.random.default_rng(0).normal(size=(2, 64, 4, 8)).astype(BF16)
    np.testing.assert_array_equal(add_bias(jnp.asarray(x), jnp.asarray(y[0])), x + y[0])


@pytest.mark.parametrize("name", ["llama", "llama_tied"])
def test_the_head_adds_up_over_chunks(name):
    # Given one state at every place, and the same token wanted there,
    config = MODELS[name]
    head = network.head_weights(config, jax.tree.map(jnp.zeros_like, weights(name)))
    hidden = jnp.ones((1, 1, MANY, config.hidden_size), BF16)
    tokens = jnp.full((1, 1, MANY), 7)

    def total(head, chunk):
        return chunked_logprobs(config, Sampling(), chunk, head, hidden, tokens)[0].sum()

    # when its logits come one place after the other, then the gradient is the sum over all.
    grads = jax.jit(jax.grad(total), static_argnums=1)
    (found,) = grads(head, 1).values()
    (expected,) = grads(head, MANY).values()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    share = 1 - 1 / config.vocab_size
    np.testing.assert_allclose(np.abs(found).max(), MANY * share, rtol=1e-2)


def test_a_prompt_copied_for_its_rows_adds_up():
    copies = jax.grad(lambda x: cudnn.copied(x, MANY).astype(jnp.float32).sum())
    assert (copies(jnp.ones((1, 2, 1, 4), BF16)) == MANY).all()
    heads = jax.grad(lambda x: cudnn.repeated(x, MANY).astype(jnp.float32).sum())
    assert (heads(jnp.ones((1, 2, 1, 4), BF16)) == MANY).all()


# float32


def test_products_in_float32_ask_for_float32_and_those_in_bfloat16_for_nothing():
    for dtype, asked in (("float32", True), ("bfloat16", False)):
        settings = make_objective(MODELS["qwen2"])
        config = settings.model
        x = jnp.zeros((1, 4), jnp.int32)
        params = jax.tree.map(lambda w, d=dtype: w.astype(d), weights("qwen2"))

        def total(params, x=x, config=config):
            return network.logits(config, params, x).sum()

        text = jax.jit(jax.grad(total)).lower(params).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert len(products) > 10
        assert all(("HIGHEST" in line) == asked for line in products)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernels_products_are_as_exact_as_the_others(dtype):
    q, kv = jnp.zeros((1, 128, 2, 8), dtype), jnp.zeros((1, 128, 1, 8), dtype)
    prompt, lengths = jnp.zeros((1, 128, 1, 8), dtype), jnp.ones(1, jnp.int32)

    def total(q):
        alone = splash.causal_attention(q, kv, kv, True)
        own = (kv[:, None], kv[:, None])
        beside = splash.prefix_attention(q[:, None], prompt, prompt, lengths, *own, None)
        return alone.sum() + beside.sum()

    program = str(jax.make_jaxpr(jax.grad(total))(q))
    products = program.count("= dot_general[")
    assert products > 5
    asked = sum("precision=" in line and "HIGHEST" in line for line in program.splitlines())
    assert asked == (products if dtype == "float32" else 0)
