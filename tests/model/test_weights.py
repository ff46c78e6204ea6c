"""Weights that apply themselves: however one is held, `q(x)` is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, mesh_like

from alphamed_jax.model import modules, network
from alphamed_jax.model.weights import Head, Matrix, OutputMajor, Split


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


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
def test_a_weight_gives_the_same_however_it_is_held(shape, axes, inputs, mesh):
    matrix, x = Matrix(normal(0, *shape), inputs), normal(1, 4, 2, 1, *shape[:inputs])
    expected = np.tensordot(x, matrix.array, inputs)
    held = matrix, OutputMajor.of(matrix), Split(matrix.array, axes, inputs)
    with jax.set_mesh(mesh_like(mesh)):
        for weight in held:
            found = jax.jit(lambda weight, x: weight(x))(weight, x)
            np.testing.assert_allclose(found, expected, 1e-5, 1e-5)


def test_a_head_gives_the_same_logits_in_both_orders():
    table, x = normal(0, 11, 8), normal(1, 3, 8)
    expected = x @ table.T
    for logits in (Head(table, True)(x), Head(table.T, False)(x), Head(table, True).by_token(x).T):
        np.testing.assert_allclose(logits, expected, 1e-5, 1e-5)


def test_weights_are_pytrees_whose_one_leaf_is_the_array():
    matrix = Matrix(jnp.zeros((2, 3)))
    assert len(jax.tree.leaves((matrix, OutputMajor.of(matrix)))) == 2
    assert jax.tree.map(lambda x: x + 1, matrix).array.sum() == 6


def test_nnx_users_get_the_same_network():
    params = modules.init(TINY, jax.random.key(0))
    tokens = jnp.arange(12).reshape(2, 6)
    module = modules.Network.of(TINY, params)
    np.testing.assert_array_equal(module(tokens), network.logits(TINY, params, tokens))
