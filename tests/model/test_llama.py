"""The network: what it computes does not depend on how it is run."""

import functools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, mesh_like, on_mesh

from alphamed_jax.config import LoraConfig
from alphamed_jax.model import lora, modules, network
from alphamed_jax.model.config import ModelConfig, RopeScaling
from alphamed_jax.model.rope import rope_frequencies

SCALING = RopeScaling(8.0, 1.0, 4.0, 8192)
logits_of = jax.jit(network.logits, static_argnums=0)


@functools.cache
def weights(config=TINY):
    """Random weights as large as those of a trained network."""
    rng = np.random.default_rng(0)

    def one(shape, axes):
        scale = 0.3 if axes[0] != "layers" or len(shape) == 2 else shape[1] ** -0.5
        return jnp.asarray(scale * rng.standard_normal(shape, np.float32))

    params = network.map_weights(one, network.weights(config))
    params["norm"] += 1
    params["layers"]["attention_norm"] += 1
    params["layers"]["mlp_norm"] += 1
    return params


def tokens(rows, length, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 320, (rows, length)), jnp.int32)


def test_random_parameters_have_the_declared_shapes():
    config = replace(TINY, tie_embeddings=False, family="qwen2")
    made = jax.eval_shape(lambda: modules.init(config, jax.random.key(0)))
    declared = network.map_weights(lambda shape, _: shape, network.weights(config))
    assert jax.tree.map(lambda leaf: leaf.shape, made) == declared
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}


def test_parameters_are_counted_as_the_model_cards_do():
    llama31_8b = ModelConfig(128256, 4096, 14336, 32, 32, 8, 128)
    smollm2_135m = ModelConfig(49152, 576, 1536, 30, 9, 3, 64, tie_embeddings=True)
    qwen2_7b = ModelConfig(152064, 3584, 18944, 28, 28, 4, 128, family="qwen2")
    assert network.count_parameters(llama31_8b) == 8_030_261_248
    assert network.count_parameters(smollm2_135m) == 134_515_008
    assert network.count_parameters(qwen2_7b) == 7_615_616_512


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_keeps_short_waves_and_stretches_long_ones(head_dim, factor):
    config = replace(TINY, head_dim=head_dim, rope_theta=5e5)
    plain = rope_frequencies(config)
    scaled = rope_frequencies(replace(config, rope_scaling=replace(SCALING, factor=factor)))
    waves = 2 * math.pi / plain.astype(np.float64)
    short, long = waves < 8192 / 4, waves > 8192 / 1
    np.testing.assert_array_equal(scaled[short], plain[short])
    np.testing.assert_allclose(scaled[long], plain[long] / factor, rtol=1e-6)
    between = ~short & ~long
    assert between.any()
    assert (scaled[between] < plain[between]).all()
    assert (scaled[between] > plain[between] / factor).all()
    assert (np.diff(scaled) < 0).all()


def test_llama31_frequencies_differ_from_plain_ones_where_expected():
    # Given Llama 3.1 8B, 35 of its 64 frequencies are scaled.
    config = replace(TINY, head_dim=128, rope_theta=5e5)
    plain = rope_frequencies(config)
    scaled = rope_frequencies(replace(config, rope_scaling=SCALING))
    assert (plain != scaled).sum() == 35


def test_scores_depend_on_distances_and_not_on_positions():
    # Given the same tokens at later positions, then the logits stay.
    x = tokens(1, 12)
    positions = jnp.arange(12)[None]
    base = logits_of(TINY, weights(), x, positions)
    moved = logits_of(TINY, weights(), x, positions + 500)
    np.testing.assert_allclose(base, moved, atol=2e-3)
    apart = logits_of(TINY, weights(), x, positions * 3)
    assert np.abs(base - apart).max() > 0.1


def test_no_token_sees_a_later_one():
    x = tokens(1, 16)
    changed = x.at[0, 10].set((x[0, 10] + 1) % 320)
    before, after = logits_of(TINY, weights(), x), logits_of(TINY, weights(), changed)
    np.testing.assert_array_equal(before[:, :10], after[:, :10])
    assert np.abs(before[:, 10:] - after[:, 10:]).max() > 0.1


def test_packed_sequences_equal_separate_ones():
    # Given three sequences in one row, each with its own positions and segment id.
    lengths = [5, 11, 8]
    rows = tokens(3, max(lengths))
    packed = jnp.concatenate([rows[i, :n] for i, n in enumerate(lengths)])[None]
    positions = jnp.concatenate([jnp.arange(n) for n in lengths])[None]
    segments = jnp.concatenate([jnp.full(n, i) for i, n in enumerate(lengths)])[None]
    together = logits_of(TINY, weights(), packed, positions, segments)
    # When each has a row of its own, then nothing has leaked between them.
    apart = logits_of(TINY, weights(), rows)
    apart = jnp.concatenate([apart[i, :n] for i, n in enumerate(lengths)])[None]
    np.testing.assert_allclose(together, apart, atol=1e-5)
    leaking = logits_of(TINY, weights(), packed, positions, jnp.zeros_like(segments))
    assert np.abs(leaking - together).max() > 0.1


def _squared(layers, remat):
    params = weights() | {"layers": layers}
    x = params["embed"][:18].reshape(2, 9, -1)
    positions = jnp.broadcast_to(jnp.arange(9), (2, 9))
    out, _ = network.run_layers(TINY, params, x, positions, _window, remat=remat)
    return (out**2).sum()


_gradient = jax.jit(jax.grad(_squared), static_argnums=1)


@pytest.mark.parametrize("remat", ["layer", "dots", "offload"])
def test_recomputing_changes_memory_and_no_number(remat):
    layers = weights()["layers"]
    again, plain = _gradient(layers, remat), _gradient(layers, "none")
    for name in layers:
        np.testing.assert_allclose(again[name], plain[name], rtol=1e-4, atol=1e-5, err_msg=name)


def _products(jaxpr):
    """Number of matrix products in a program and in those that it calls."""
    inner = [
        getattr(part, "jaxpr", part)
        for equation in jaxpr.eqns
        for value in equation.params.values()
        for part in (value if isinstance(value, tuple | list) else [value])
    ]
    own = sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)
    return own + sum(_products(part) for part in inner if hasattr(part, "eqns"))


def test_each_way_to_recompute_computes_again_what_it_says():
    # A product hidden in a call would be computed again under "dots", too.
    layers = weights()["layers"]
    none, dots, offload, layer = (
        _products(jax.make_jaxpr(_gradient, static_argnums=1)(layers, remat).jaxpr)
        for remat in ("none", "dots", "offload", "layer")
    )
    assert none == dots == offload < layer


def test_where_products_are_kept_the_second_one_of_an_adapter_is_made_again():
    # Given adapters of a rank that is no width of the model,
    adapters = LoraConfig(rank=3)
    factors = lora.fresh_factors(TINY, adapters, mesh_like("1x1"), jax.random.key(0))
    layers = lora.attach(adapters, weights(), factors)["layers"]

    def gradient(remat):
        def loss(factors):
            beside = {n: replace(layers[n], **f) for n, f in factors.items()}
            return _squared({**layers, **beside}, remat)

        return jax.make_jaxpr(jax.grad(loss))(factors).jaxpr

    # then of q, k, v, gate and up, whose results are needed again, one product more is made.
    assert _products(gradient("dots")) - _products(gradient("none")) == 5


def _window(q, k, v):
    """Cheapest attention there is: to the token itself."""
    return jnp.repeat(v, q.shape[-2] // v.shape[-2], axis=-2) + 0 * q


@pytest.mark.parametrize("mesh", ["2x2x2", "1x8"])
def test_logits_do_not_depend_on_the_mesh(mesh):
    x = tokens(8, 10)
    alone = logits_of(TINY, weights(), x)
    with jax.set_mesh(mesh_like(mesh)):
        split = logits_of(TINY, on_mesh(weights(), mesh), x)
    np.testing.assert_allclose(alone, split, atol=1e-4)


def test_weights_are_arguments_of_the_program_and_not_constants_in_it():
    lowered = jax.jit(network.logits, static_argnums=0).lower(TINY, weights(), tokens(1, 8))
    largest = max(
        math.prod(int(n) for n in part.split(">")[0].split("x")[:-1] if n)
        for line in lowered.as_text().splitlines()
        if "stablehlo.constant" in line
        for part in line.split("tensor<")[1:]
    )
    assert largest < 1000  # the smallest weight matrix has 4096 numbers
    memory = lowered.compile().memory_analysis()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(weights()))
    assert memory.argument_size_in_bytes >= size
    assert memory.generated_code_size_in_bytes < size


def test_keys_and_values_of_all_layers_are_kept_on_request():
    x = jnp.zeros((2, 9, 64))
    positions = jnp.broadcast_to(jnp.arange(9), (2, 9))
    out, kv = jax.eval_shape(
        lambda params: network.run_layers(TINY, params, x, positions, _window, keep_kv=True),
        weights(),
    )
    assert out.shape == (2, 9, 64)
    assert [leaf.shape for leaf in kv] == [(2, 2, 9, 4, 8)] * 2


def test_bfloat16_weights_compute_in_bfloat16_and_give_float32_logits():
    small = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), weights())
    out = logits_of(TINY, small, tokens(1, 8))
    assert out.dtype == jnp.float32
    assert 0 < np.abs(out - logits_of(TINY, weights(), tokens(1, 8))).max() < 0.5
