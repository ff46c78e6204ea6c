"""Adapters beside frozen weights: what they compute, where they begin, and what of them learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, mesh_like, on_mesh, tiny_params
from tiny_rollouts import weights

from alphamed_jax.config import LoraConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model import hf, lora, network
from alphamed_jax.model.mesh import single_device_mesh
from alphamed_jax.model.weights import LowRank, Matrix, OutputMajor

KEY = jax.random.key(7)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, TINY.vocab_size, (2, 12)))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def family(name):
    """A tiny network of a family, its biases and norms away from where they begin."""
    config = dataclasses.replace(TINY, family=name, head_dim=16, tie_embeddings=name != "qwen2")
    params = jax.jit(tiny_params, static_argnums=0)(config)
    layers = {
        n: w + 0.3 * normal(5, *w.shape) if n.endswith(("bias", "norm")) else w
        for n, w in params["layers"].items()
    }
    return config, params | {"layers": layers}


def adapted(config, params, rank=3, mesh=None, **settings):
    """The network with adapters that change much."""
    settings = LoraConfig(rank=rank, **settings)
    factors = lora.fresh_factors(config, settings, mesh or single_device_mesh(), KEY)
    for both in factors.values():
        both["b"] = jax.device_put(0.1 * normal(1, *both["b"].shape), both["b"].sharding)
    return lora.attach(settings, params, factors)


def merged(config, params):
    layers = {
        name: jax.vmap(LowRank.merged)(w) if isinstance(w, LowRank) else w
        for name, w in params["layers"].items()
    }
    return params | {"layers": layers}


logits_of = jax.jit(network.logits, static_argnums=0)


@pytest.mark.parametrize(
    ("shape", "inputs"), [((16, 4, 6), 1), ((4, 6, 16), 2), ((16, 8), 1)], ids=["q", "o", "gate"]
)
@pytest.mark.parametrize("held", [Matrix, OutputMajor])
def test_it_is_the_base_plus_the_scaled_product(shape, inputs, held):
    # Given x [2 3 in..], W, A and B,
    weight, x = normal(0, *shape), normal(1, 2, 3, *shape[:inputs])
    a, b = normal(2, *shape[:inputs], 5), normal(3, 5, *shape[inputs:])
    base = Matrix(weight, inputs)
    leaf = LowRank(base if held is Matrix else OutputMajor.of(base), a, b, scale=0.25)
    # then the leaf gives x W + x A B / 4, and merged it is W + A B / 4.
    expected = np.tensordot(x, weight, inputs) + 0.25 * np.tensordot(
        np.tensordot(x, a, inputs), b, 1
    )
    np.testing.assert_allclose(jax.jit(lambda w, x: w(x))(leaf, x), expected, 1e-4, 1e-4)
    one = LowRank(weight, a, b, scale=0.25).merged()
    np.testing.assert_allclose(one, weight + 0.25 * np.tensordot(a, b, 1), 1e-5, 1e-5)


@pytest.mark.parametrize(
    "name", ["llama", *(pytest.param(n, marks=pytest.mark.slow) for n in ("qwen2", "qwen3"))]
)
def test_a_fresh_adapter_changes_no_bit_and_a_moved_one_is_its_merged_weights(name):
    config, params = family(name)
    settings = LoraConfig(rank=4)
    fresh = lora.fresh_factors(config, settings, single_device_mesh(), KEY)
    before = logits_of(config, params, TOKENS)
    zero = logits_of(config, lora.attach(settings, params, fresh), TOKENS)
    np.testing.assert_array_equal(zero, before)
    moved = adapted(config, params)
    beside = logits_of(config, moved, TOKENS)
    assert np.abs(beside - before).max() > 0.1
    np.testing.assert_allclose(beside, logits_of(config, merged(config, moved), TOKENS), atol=1e-4)


def test_alpha_over_rank_scales_the_product():
    leaf = adapted(TINY, weights(), rank=4, alpha=6.0)["layers"]["q"]
    assert leaf.scale == 1.5


def test_adapters_begin_alike_on_any_mesh_and_apart_in_layers_weights_and_seeds():
    settings = LoraConfig(rank=4)
    alone, split = (
        lora.fresh_factors(TINY, settings, mesh_like(mesh), KEY) for mesh in ("1x1", "2x4")
    )
    jax.tree.map(np.testing.assert_array_equal, alone, split)
    for name, spec in lora.targets(TINY, settings).items():
        a, b = np.asarray(alone[name]["a"]), np.asarray(alone[name]["b"])
        inputs = np.prod(spec.shape[: spec.inputs])
        assert a.reshape(2, inputs, 4).shape[0] == TINY.num_layers
        # Uniform within 1 / sqrt(in): a third of its square is the variance.
        assert np.abs(a).max() <= inputs**-0.5
        np.testing.assert_allclose(a.var(), 1 / (3 * inputs), rtol=0.2)
        assert not b.any()
        assert (a[0] != a[1]).all()
    assert (np.asarray(alone["q"]["a"]) != np.asarray(alone["k"]["a"])).all()
    other = lora.fresh_factors(TINY, settings, mesh_like("1x1"), jax.random.key(8))
    assert (np.asarray(other["q"]["a"]) != np.asarray(alone["q"]["a"])).all()
    # Fewer targets leave the others as they were.
    few = lora.fresh_factors(TINY, LoraConfig(rank=4, targets=("v",)), mesh_like("1x1"), KEY)
    np.testing.assert_array_equal(few["v"]["a"], alone["v"]["a"])


def test_adapters_are_split_as_their_weights_are():
    shapes = lora.abstract_factors(TINY, LoraConfig(rank=4), mesh_like("2x4"))
    specs = jax.tree.map(lambda x: tuple(x.sharding.spec), shapes)
    assert specs["q"] == {"a": (None, "fsdp", None), "b": (None, None, "tensor", None)}
    assert specs["o"] == {"a": (None, "tensor", None, None), "b": (None, None, "fsdp")}
    assert specs["down"] == {"a": (None, "tensor", None), "b": (None, None, "fsdp")}
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (("all",), "q k v o gate up down"),
        (("attention",), "q k v o"),
        (("feed_forward",), "gate up down"),
        (("q", "v"), "q v"),
        (("attention,up",), "q k v o up"),
    ],
)
def test_targets_are_groups_or_names(given, names):
    assert list(lora.targets(TINY, LoraConfig(rank=1, targets=given))) == names.split()
    assert lora.targets(TINY, LoraConfig(rank=0, targets=given)) == {}


def test_a_target_that_is_no_linear_layer_is_refused():
    for name in ("query", "q_bias", "norm"):
        with pytest.raises(UserError, match=f"lora.targets: '{name}' is no linear layer"):
            lora.targets(TINY, LoraConfig(rank=1, targets=(name,)))
    with pytest.raises(UserError, match=r"lora\.targets is empty: name some, or all"):
        lora.targets(TINY, LoraConfig(rank=1, targets=(" ",)))


def test_adapters_learn_where_there_are_any_and_all_weights_else():
    params = weights()
    assert lora.learned(params) is params
    assert lora.with_learned(params, changed := dict(params)) is changed
    beside = adapted(TINY, params, targets=("q",))
    learned = lora.learned(beside)
    assert {name: set(f) for name, f in learned["layers"].items()} == {"q": {"a", "b"}}
    changed = lora.with_learned(beside, jax.tree.map(lambda x: x + 1, learned))
    np.testing.assert_array_equal(changed["layers"]["q"].a, learned["layers"]["q"]["a"] + 1)
    assert changed["layers"]["q"].base is params["layers"]["q"]
    for tree in (changed, beside):
        back = lora.without_adapters(tree)
        assert jax.tree.structure(back) == jax.tree.structure(params)
        assert back["layers"]["q"] is params["layers"]["q"]


def test_an_export_holds_the_merged_weights(tmp_path):
    split = on_mesh(weights(), "2x2")
    params = adapted(TINY, split, mesh=mesh_like("2x2"))
    hf.save(tmp_path / "export", TINY, params)
    _, read = hf.load(tmp_path / "export")
    expected = merged(TINY, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-6), read, expected)
