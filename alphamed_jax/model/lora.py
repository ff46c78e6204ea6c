"""Low-rank adapters: which weights have one, where they begin, and what of a model learns.

Beside a frozen matrix W [in, out] stands the product of A [in, r] and B [r, out]:

    y = x W + (alpha / r) (x A) B

A starts random and B at zero, so that a fresh adapter changes nothing (Hu et al. 2021, 4.1). A tree
of parameters with adapters is the usual one with a `weights.LowRank` in place of an array.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from alphamed_jax.config import LoraConfig
from alphamed_jax.errors import UserError, nearest
from alphamed_jax.model import hf, network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.families.family import Spec, Table
from alphamed_jax.model.mesh import AnyMesh, sharding
from alphamed_jax.model.weights import LowRank

GROUPS = {"attention": ("heads", "kv_heads"), "feed_forward": ("mlp",)}
"""Targets that stand for several weights: those with such an axis."""
# The key of the adapters folds in this number: beyond the sequence ids, whose keys draw samples.
_STREAM = 0xFFFF_10A4

Factors = dict[str, dict[str, Any]]
"""Weight of a layer -> its `a` and `b`, all layers stacked."""


def targets(config: ModelConfig, lora: LoraConfig) -> Table:
    """The weights of a layer that have an adapter; none with rank 0.

    Raises:
      UserError: no target, or one that the family does not have.
    """
    if not lora.rank:
        return {}
    matrices = {name: w for name, w in network.layer_weights(config).items() if w.inputs}
    known = ("all", *GROUPS, *matrices)
    if not lora.targets:
        raise UserError("lora.targets is empty: name some, or all; lora.rank 0 has no adapters.")
    for target in lora.targets:
        if target not in known:
            raise UserError(
                f"lora.targets: {target!r} is no linear layer; expected some of "
                f"{', '.join(known)}.{nearest(target, known)}"
            )

    def meant(name: str, spec: Spec) -> bool:
        groups = (group for group, axes in GROUPS.items() if {*axes} & {*spec.axes})
        return not {"all", name, *groups}.isdisjoint(lora.targets)

    return {name: spec for name, spec in matrices.items() if meant(name, spec)}


def table(config: ModelConfig, lora: LoraConfig) -> dict[str, Table]:
    """The adapters of one layer as rows of the table of weights; stored as peft names them."""

    def thin(spec: Spec) -> Table:
        stem = spec.stored.removesuffix(".weight")
        of_a, of_b = spec.thin_axes
        a = Spec(
            f"{stem}.lora_A.weight", (*spec.shape[: spec.inputs], lora.rank), of_a, spec.inputs
        )
        b = Spec(f"{stem}.lora_B.weight", (lora.rank, *spec.shape[spec.inputs :]), of_b, 1)
        return {"a": a, "b": b}

    return {name: thin(spec) for name, spec in targets(config, lora).items()}


def count_parameters(config: ModelConfig, lora: LoraConfig) -> int:
    """Number of parameters that learn; 0 without adapters."""
    thin = (spec for both in table(config, lora).values() for spec in both.values())
    return config.num_layers * sum(math.prod(spec.shape) for spec in thin)


def abstract_factors(config: ModelConfig, lora: LoraConfig, mesh: AnyMesh) -> Factors:
    """Shapes and shardings of what learns, in float32."""

    def leaf(shape: tuple[int, ...], axes: tuple[str | None, ...]) -> jax.ShapeDtypeStruct:
        shape, axes = (config.num_layers, *shape), ("layers", *axes)
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding(axes, shape, mesh))

    return network.map_weights(leaf, table(config, lora))


def fresh_factors(
    config: ModelConfig, lora: LoraConfig, mesh: AnyMesh, key: Key[Array, ""]
) -> Factors:
    """A uniform within 1 / sqrt(in), as peft begins, and B zero; the same on any mesh.

    Args:
      key: of the run.
    """
    shapes = abstract_factors(config, lora, mesh)
    if not shapes:
        return {}
    numbers = {name: number for number, name in enumerate(network.layer_weights(config))}

    def make(key: Key[Array, ""]) -> Factors:
        key = jax.random.fold_in(key, _STREAM)

        def one(name: str, a: Any, b: Any) -> dict[str, jax.Array]:
            bound = 1 / math.sqrt(math.prod(a.shape[1:-1]))
            own = jax.random.fold_in(key, numbers[name])
            drawn = jax.random.uniform(own, a.shape, a.dtype, -bound, bound)
            return {"a": drawn, "b": jnp.zeros(b.shape, b.dtype)}

        return {name: one(name, **both) for name, both in shapes.items()}

    return jax.jit(make, out_shardings=jax.tree.map(lambda x: x.sharding, shapes))(key)


def attach(lora: LoraConfig, params: Params, factors: Factors) -> Params:
    """The parameters with adapters beside them."""
    scale = lora.alpha / max(lora.rank, 1)
    beside = {
        name: LowRank(params["layers"][name], **f, scale=scale) for name, f in factors.items()
    }
    return params | {"layers": params["layers"] | beside}


def abstract(config: ModelConfig, lora: LoraConfig, mesh: AnyMesh, dtype: Any) -> Params:
    """Shapes and shardings of the parameters that training holds.

    Args:
      dtype: of a frozen model; without adapters all are float32 masters.
    """
    params = hf.abstract(config, mesh, dtype if lora.rank else jnp.float32)
    return attach(lora, params, abstract_factors(config, lora, mesh))


def learned(params: Params) -> Params:
    """The part that learns: the adapters, as `layers` of factors, where there are any, else all."""
    layers = params["layers"]
    factors = {n: {"a": w.a, "b": w.b} for n, w in layers.items() if isinstance(w, LowRank)}
    return {"layers": factors} if factors else params


def with_learned(params: Params, changed: Params) -> Params:
    """The parameters with what `learned` returns replaced."""
    layers = params["layers"]
    if not any(isinstance(w, LowRank) for w in layers.values()):
        return changed
    replaced = {n: dataclasses.replace(layers[n], **f) for n, f in changed["layers"].items()}
    return params | {"layers": layers | replaced}


def without_adapters(params: Params) -> Params:
    """The frozen model: the policy that the adapters began with."""
    layers = {n: w.base if isinstance(w, LowRank) else w for n, w in params["layers"].items()}
    return params | {"layers": layers}
