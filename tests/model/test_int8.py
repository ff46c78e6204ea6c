"""Arrays in 8 bits: how far they are off, and that products with them are what NumPy says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import Sizes, prefix_arrays
from helpers import TINY, mesh_like, on_mesh, tiny_params
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from alphamed_jax.compiled import collectives
from alphamed_jax.config import LoraConfig
from alphamed_jax.model import cache, lora, network
from alphamed_jax.model.dense import prefix_decode, to_cache
from alphamed_jax.model.int8 import Int8
from alphamed_jax.model.masks import valid_mask
from alphamed_jax.model.mesh import single_device_mesh
from alphamed_jax.model.weights import Head, LowRank, Matrix, OutputMajor, Split
from alphamed_jax.rl.decode_weights import layer_decode_weights, make_decode_weights

# A scale below the smallest normal number is 0 on a CPU.
NORMAL = st.floats(-1e6, 1e6, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def meant(held, axes):
    """What 8 bits and their scale stand for."""
    return np.asarray(held.values, np.float32) * np.expand_dims(held.scale, axes)


# What they stand for


@given(arrays.arrays(np.float32, (3, 4, 5), elements=NORMAL), st.sampled_from([(0,), (0, 1), (2,)]))
def test_no_number_is_off_by_more_than_half_its_scale(array, axes):
    held = Int8.of(jnp.asarray(array), axes)
    assert held.values.dtype == jnp.int8
    np.testing.assert_allclose(held.scale, np.abs(array).max(axes) / 127, rtol=1e-6)
    error = np.abs(meant(held, axes) - array)
    assert (error <= 0.5001 * np.expand_dims(held.scale, axes)).all()
    # The largest of those that share a scale are whole.
    largest = np.abs(array) == np.abs(array).max(axes, keepdims=True)
    np.testing.assert_allclose(error[largest], 0, atol=1e-6 * np.abs(array).max())


def test_zeros_stay_zeros():
    held = Int8.of(jnp.zeros((2, 3)), (1,))
    assert not held.values.any()
    assert not held.scale.any()


# Weights


@pytest.mark.parametrize(
    ("shape", "axes", "inputs"),
    [
        ((16, 4, 6), ("embed", "heads", "head"), 1),
        ((4, 6, 16), ("heads", "head", "embed"), 2),
        ((16, 8), ("embed", "mlp"), 1),
        ((8, 16), ("mlp", "embed"), 1),
    ],
    ids=["q", "o", "gate", "down"],
)
@pytest.mark.parametrize("mesh", ["1x1", "2x2"])
def test_a_weight_gives_the_product_with_what_it_stands_for(shape, axes, inputs, mesh):
    # Given a weight whose output channels differ in size a hundredfold,
    sizes = 10 ** np.random.default_rng(2).uniform(-1, 1, shape[inputs:])
    array, x = normal(0, *shape) * sizes, normal(1, 4, 2, 1, *shape[:inputs])
    summed = tuple(range(inputs))
    held = Int8.of(array, summed)
    expected = np.tensordot(x, meant(held, summed), inputs)
    matrix = Matrix(held, inputs)
    with jax.set_mesh(mesh_like(mesh)):
        for weight in (matrix, OutputMajor.of(matrix), Split(held, axes, inputs)):
            found = jax.jit(lambda weight, x: weight(x))(weight, x)
            np.testing.assert_allclose(found, expected, 1e-4, 1e-4)
    # then each channel is about as exact as the others.
    plain = np.tensordot(x, array, inputs)
    off = np.abs(expected - plain).reshape(-1, *shape[inputs:]).max(0) / sizes
    assert off.min() > 0
    assert off.max() < 0.1


def test_a_head_and_a_tied_table_have_a_scale_for_each_token():
    table, x = normal(0, 11, 8), normal(1, 3, 8)
    held = Int8.of(table, (1,))
    expected = x @ meant(held, (1,)).T
    turned = Int8(held.values.T, held.scale)
    for logits in (Head(held, True)(x), Head(turned, False)(x), Head(held, True).by_token(x).T):
        np.testing.assert_allclose(logits, expected, 1e-5, 1e-5)
    rows = network.embed(TINY, {"embed": held}, jnp.asarray([[3, 0, 3]]), jnp.float32)
    np.testing.assert_allclose(rows, meant(held, (1,))[[[3, 0, 3]]], 1e-6)


@pytest.mark.parametrize(
    ("family", "tied", "output_major"),
    [("llama", True, True), ("qwen2", False, False), ("qwen3", False, True)],
)
def test_decode_weights_have_matrices_and_head_in_8_bits_and_the_rest_as_it_is(
    family, tied, output_major
):
    config = dataclasses.replace(TINY, family=family, tie_embeddings=tied)
    params = tiny_params(config)
    made = make_decode_weights(config, params, jnp.float32, output_major, int8=True)
    layer = made.weights["layers"][1]
    for name, spec in network.layer_weights(config).items():
        if not spec.inputs:
            np.testing.assert_array_equal(layer[name], params["layers"][name][1])
            continue
        expected = Int8.of(params["layers"][name][1], tuple(range(spec.inputs)))
        held = layer[name].array
        assert held.values.dtype == jnp.int8
        np.testing.assert_array_equal(held.scale.reshape(-1), expected.scale.reshape(-1))
    assert isinstance(made.weights["embed" if tied else "head"], Int8)
    if not tied:  # of which rows are read alone
        np.testing.assert_array_equal(made.weights["embed"], params["embed"])
    x = normal(0, 3, TINY.hidden_size)
    plain = make_decode_weights(config, params, jnp.float32, output_major)
    ours, theirs = (np.asarray(w.logits(config, x)) for w in (made, plain))
    assert 0 < np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_an_adapter_stays_beside_in_float32_too():
    # Given an adapter much smaller than half of a weight's scale,
    settings, params = LoraConfig(rank=2, targets=("gate",)), tiny_params()
    factors = lora.fresh_factors(TINY, settings, single_device_mesh(), jax.random.key(0))
    factors["gate"]["b"] = 1e-5 * normal(0, *factors["gate"]["b"].shape)
    params = lora.attach(settings, params, factors)
    # when decoding's weights are made,
    layer = layer_decode_weights(
        TINY, params["layers"], jnp.int32(0), jnp.dtype("float32"), int8=True
    )
    # then what is sampled has learnt all the same.
    leaf, x = layer["gate"], normal(1, 5, TINY.hidden_size)
    assert isinstance(leaf, LowRank)
    a, b = (factors["gate"][name][0] for name in "ab")
    np.testing.assert_allclose(leaf(x) - leaf.base(x), leaf.scale * (x @ a @ b), 1e-2, 1e-6)
    assert np.abs(x @ a @ b).max() > 1e-6


def test_weights_are_the_same_on_any_mesh_and_travel_in_8_bits():
    params = tiny_params()
    alone = make_decode_weights(TINY, params, jnp.float32, int8=True)
    for mesh, sharded in (("4x2", False), ("4x2", True), ("2x2x2", False)):
        with jax.set_mesh(mesh_like(mesh)):
            split = make_decode_weights(
                TINY, on_mesh(params, mesh), jnp.float32, sharded=sharded, int8=True
            )
        for ours, theirs in zip(*map(jax.tree.leaves, (split, alone)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    # What is gathered are the 8 bits and the scales.
    given = on_mesh(params, "4x2")["layers"]
    with jax.set_mesh(mesh_like("4x2")):
        lowered = layer_decode_weights.lower(
            TINY, given, jnp.int32(0), jnp.dtype("float32"), int8=True
        )
    moved = collectives.collective_bytes(lowered.compile().as_text())["all-gather"]
    assert moved["f32"] < 0.2 * moved["s8"]


# Caches


def decoded(hold, given, own):
    return prefix_decode(
        given["q"][:, :, -1],
        hold(to_cache(given["prompt_k"])),
        hold(to_cache(given["prompt_v"])),
        valid_mask(given["prompt_lengths"], 16),
        *map(hold, own),
        jnp.ones((4, 24), bool),
    )


def test_a_step_of_decoding_reads_what_the_caches_stand_for():
    given = prefix_arrays(Sizes())
    own = [to_cache(given[name]).reshape(4, 2, 24, 8) for name in ("own_k", "own_v")]
    found = decoded(lambda x: cache.hold(x, int8=True), given, own)
    expected = decoded(lambda x: jnp.asarray(meant(Int8.of(x, (3,)), (3,))), given, own)
    np.testing.assert_allclose(found, expected, 1e-5, 1e-5)
    plain = decoded(lambda x: cache.hold(x, int8=False), given, own)
    assert 0 < np.abs(found - plain).max() < 0.05


def test_a_token_is_written_with_its_scale_and_leaves_the_others_alone():
    made = cache.empty((3, 2, 5, 4), jnp.float32, int8=True)
    first, second = normal(0, 3, 2, 1, 4), 100 * normal(1, 3, 2, 1, 4)
    made = cache.write(cache.write(made, first, jnp.int32(1)), second, jnp.int32(4))
    found = meant(made, (3,))
    np.testing.assert_allclose(found[:, :, 1:2], first, atol=np.abs(first).max() / 250)
    np.testing.assert_allclose(found[:, :, 4:], second, atol=np.abs(second).max() / 250)
    assert not found[:, :, [0, 2, 3]].any()


@pytest.mark.parametrize("int8", [False, True])
def test_a_longer_cache_is_empty_behind_what_it_has(int8):
    held = cache.hold(normal(0, 3, 2, 5, 4), int8)
    longer = cache.lengthened(held, 7)
    assert longer.shape == (3, 2, 7, 4)
    for ours, before in zip(*map(jax.tree.leaves, (longer, held)), strict=True):
        np.testing.assert_array_equal(ours[:, :, :5], before)
        assert not ours[:, :, 5:].any()
