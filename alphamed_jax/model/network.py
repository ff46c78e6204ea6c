"""The network in plain functions: its table of weights, a block, and the ways to run the stack.

Parameters are one plain pytree of arrays. `modules.init` or `hf.load` makes it; functions are pure:

    embed [V D] · norm [D] · head [D V] (absent when tied)
    layers: attention_norm [L D] · q [L D N H] · k, v [L D K H] · o [L N H D] · mlp_norm [L D]
            gate, up [L D F] · down [L F D], and what the family adds (`families`)
"""

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alphamed_jax.model.attention import Attend
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.dense import causal_attention
from alphamed_jax.model.families import FAMILIES
from alphamed_jax.model.families.family import Spec, Table
from alphamed_jax.model.int8 import Held, Int8, scaled, unscaled
from alphamed_jax.model.mesh import constrain
from alphamed_jax.model.numerics import gated, look_up, rms_norm
from alphamed_jax.model.rope import rope_table, rotate
from alphamed_jax.model.weights import Head, LowRank, Matrix, OutputMajor, Split, Weight, together

Remat = str  # "none" | "layer" | "dots" | "offload"


def layer_weights(config: ModelConfig) -> Table:
    """The weights of one layer."""
    return FAMILIES[config.family].layer_weights(config)


def weights(config: ModelConfig) -> Params:
    """The whole parameter tree with a `Spec` as each leaf."""
    tree: Params = FAMILIES[config.family].ends(config)
    if config.tie_embeddings:
        del tree["head"]
    return tree | {
        "layers": {
            name: spec._replace(shape=(config.num_layers, *spec.shape), axes=("layers", *spec.axes))
            for name, spec in layer_weights(config).items()
        }
    }


def map_weights(function: Callable[[tuple[int, ...], tuple[str | None, ...]], Any], tree: Params):
    """Apply `function(shape, axes)` to each leaf of a tree of `Spec`."""
    return jax.tree.map(
        lambda spec: function(spec.shape, spec.axes),
        tree,
        is_leaf=lambda leaf: isinstance(leaf, Spec),
    )


def count_parameters(config: ModelConfig) -> int:
    """Number of parameters; a tied head counts once."""
    return sum(jax.tree.leaves(map_weights(lambda shape, _: math.prod(shape), weights(config))))


def block(
    config: ModelConfig,
    weights: dict[str, Any],
    x: Float[Array, "*B T D"],
    rope: tuple[jax.Array, jax.Array],
    attend: Attend,
) -> tuple[Float[Array, "*B T D"], tuple[jax.Array, jax.Array]]:
    """One layer: attention and gated feed-forward, each with its residual.

    Returns its output, and its rotated keys and values [.. T K H].

    Args:
      weights: as `gathered` gives them: matrices apply themselves.
    """
    w = SimpleNamespace(**weights)
    h = rms_norm(x, w.attention_norm, config.rms_norm_eps)
    q, k, v = FAMILIES[config.family].heads(config, w, *together(h, w.q, w.k, w.v))
    q, k = rotate(q, rope), rotate(k, rope)
    x = x + w.o(attend(q, k, v))
    h = rms_norm(x, w.mlp_norm, config.rms_norm_eps)
    return x + w.down(gated(*together(h, w.gate, w.up))), (k, v)


def gathered(
    config: ModelConfig,
    layer_params: Params,
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
    int8: bool = False,
) -> dict[str, Any]:
    """One layer's weights as `block` takes them: cast, and gathered over `fsdp`.

    They stay split over `tensor`, and with `sharded` over `fsdp` too.

    Args:
      int8: matrices in 8 bits, a scale for each output channel; adapters beside them are cast.
    """

    def cast(array: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        return constrain(array.astype(dtype), *axes_in_use(axes, sharded))

    def used(spec: Spec, array: Any) -> Any:
        if isinstance(array, LowRank):
            of_a, of_b = spec.thin_axes
            a, b = cast(array.a, of_a), cast(array.b, of_b)
            return LowRank(used(spec, array.base), a, b, array.scale)
        if int8 and spec.inputs:
            held = _in_8_bits(array, spec.axes, tuple(range(spec.inputs)), sharded)
        else:
            held = cast(array, spec.axes)
        weight = as_weight(spec, held, sharded)
        return OutputMajor.of(weight) if output_major and isinstance(weight, Matrix) else weight

    return {name: used(spec, layer_params[name]) for name, spec in layer_weights(config).items()}


def _in_8_bits(
    array: jax.Array, axes: tuple[str | None, ...], summed: tuple[int, ...], sharded: bool
) -> Int8:
    """A matrix in 8 bits, a scale for all that is not `summed` over, and then gathered."""
    found = Int8.of(array, summed)
    # Stated to be split as training has it, so that 8 bits a number travel.
    values = constrain(constrain(found.values, *axes), *axes_in_use(axes, sharded))
    out = tuple(axis for place, axis in enumerate(axes) if place not in summed)
    return Int8(values, constrain(found.scale, *axes_in_use(out, sharded)))


def as_weight(spec: Spec, array: Any, sharded: bool = False) -> Weight | Any:
    """A matrix as what applies it; other arrays as they are."""
    if not spec.inputs:
        return array
    return Split(array, spec.axes, spec.inputs) if sharded else Matrix(array, spec.inputs)


def axes_in_use(axes: tuple[str | None, ...], sharded: bool = False) -> tuple[str | None, ...]:
    """Logical axes by which a weight is split where it is used: `fsdp` only if `sharded`."""
    return axes if sharded else tuple(None if axis == "embed" else axis for axis in axes)


def head_weights(config: ModelConfig, params: Params) -> Params:
    """The one array that the head is made of, by its name."""
    name = "embed" if config.tie_embeddings else "head"
    return {name: params[name]}


def gathered_head(
    config: ModelConfig, params: Params, dtype: Any, sharded: bool = False, int8: bool = False
) -> Head:
    """The head, cast to `dtype` or in 8 bits, and gathered as by `gathered`."""
    ((name, weight),) = head_weights(config, params).items()
    axes = weights(config)[name].axes
    held: Held
    if int8:
        held = _in_8_bits(weight, axes, (axes.index("embed"),), sharded)
    else:
        held = constrain(weight.astype(dtype), *axes_in_use(axes, sharded))
    return Head(held, vocabulary_first=config.tie_embeddings)


def embed(config: ModelConfig, params: Params, tokens: Int[Array, "*B T"], dtype: Any) -> jax.Array:
    """Token embeddings [.. T D]."""
    table = params["embed"]
    if isinstance(table, Int8):
        rows = Int8(table.values[tokens], table.scale[tokens][..., None])
        return scaled(unscaled(rows, dtype), rows)
    return look_up(table, tokens, dtype)


def run_layers(
    config: ModelConfig,
    params: Params,
    x: Float[Array, "B T D"],
    positions: Int[Array, "B T"],
    attend: Attend,
    *,
    remat: Remat = "none",
    keep_kv: bool = False,
) -> tuple[Float[Array, "B T D"], tuple[jax.Array, jax.Array] | None]:
    """Scan the stack of layers, then the final norm.

    With `keep_kv` also return all keys and values, each [L B T K H].
    """
    rope = rope_table(config, positions)
    dtype = x.dtype

    def body(x, layer_params):
        x = constrain(x, "batch", None, None)
        x, kv = block(config, gathered(config, layer_params, dtype), x, rope, attend)
        return x, kv if keep_kv else None

    if remat == "layer":
        body = jax.checkpoint(body, prevent_cse=False)
    elif remat != "none":
        policy = _kept_products(params["layers"], offload=remat == "offload")
        body = jax.checkpoint(body, policy=policy, prevent_cse=False)
    x, kv = jax.lax.scan(body, x, params["layers"])
    return rms_norm(x, params["norm"], config.rms_norm_eps), kv


def _kept_products(layers: Params, offload: bool) -> Callable[..., Any]:
    """What `dots` keeps of a layer: its products of weights, but not the second one of an adapter.

    That one sums over the rank alone, and what comes out is as large as what comes out of the
    weight beside it: next to nothing to compute again, and as much again to keep.

    Args:
      offload: keep them in the host's memory.
    """
    ranks = {weight.a.shape[-1] for weight in layers.values() if isinstance(weight, LowRank)}
    policies = jax.checkpoint_policies
    products = policies.dots_with_no_batch_dims_saveable
    if offload:
        products = policies.offload_dot_with_no_batch_dims("device", "pinned_host")

    def keep(primitive: Any, *arrays: Any, **how: Any) -> Any:
        if primitive.name == "dot_general":
            (summed, _), _ = how["dimension_numbers"]
            if math.prod(arrays[0].shape[axis] for axis in summed) in ranks:
                return False
        return products(primitive, *arrays, **how)

    return keep


def unembed(config: ModelConfig, params: Params, x: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
    """Logits in float32."""
    (weight,) = head_weights(config, params).values()
    return Head(weight.astype(x.dtype), vocabulary_first=config.tie_embeddings)(x)


def logits(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T V"]:
    """Logits of whole sequences, for parity checks and pretraining of small models.

    A token sees the tokens before it with the same segment id. Computed in the dtype of the
    parameters. Reinforcement learning never calls it: no [B T V] array exists there.
    """
    rows, length = tokens.shape
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(length), (rows, length))
    attend = functools.partial(causal_attention, segment_ids=segment_ids)
    x = embed(config, params, tokens, params["embed"].dtype)
    x, _ = run_layers(config, params, x, positions, attend)
    return unembed(config, params, x)
