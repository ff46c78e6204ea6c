"""Llama and Qwen2 in Flax NNX: the layer, its weights, and the ways to run the stack.

Parameters are one plain pytree. `init` or `hf.load` makes it; the hot functions are pure:

    embed [V D] · norm [D] · head [D V] (absent when tied)
    layers: attention_norm [L D] · q [L D N H] · k, v [L D K H] · o [L N H D]
            q_bias [L N H] · k_bias, v_bias [L K H] (Qwen2) · mlp_norm [L D]
            gate, up [L D F] · down [L F D]
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from alphamed_jax.model.attention import Attend
from alphamed_jax.model.dense import causal_attention
from alphamed_jax.model.mesh import constrain
from alphamed_jax.model.numerics import (
    add_bias,
    exact,
    gated,
    look_up,
    project,
    project_rows,
    rms_norm,
)

Params = dict[str, Any]
Remat = str  # "none" | "layer" | "dots"


@dataclass(frozen=True)
class RopeScaling:
    """The `llama3` frequency scaling of Llama 3.1 and later."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class ModelConfig:
    """What config.json says of the network (`hf.read_config` reads it)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool = False
    qkv_bias: bool = False
    max_position_embeddings: int = 4096
    dtype: str = "float32"
    """Precision of the stored weights, kept for export."""


def layer_weights(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]]:
    """Shape and logical axes of each weight of one layer."""
    d, f = config.hidden_size, config.intermediate_size
    n, k, h = config.num_heads, config.num_kv_heads, config.head_dim
    weights = {
        "attention_norm": ((d,), (None,)),
        "q": ((d, n, h), ("embed", "heads", "head")),
        "k": ((d, k, h), ("embed", "kv_heads", "head")),
        "v": ((d, k, h), ("embed", "kv_heads", "head")),
        "o": ((n, h, d), ("heads", "head", "embed")),
        "mlp_norm": ((d,), (None,)),
        "gate": ((d, f), ("embed", "mlp")),
        "up": ((d, f), ("embed", "mlp")),
        "down": ((f, d), ("mlp", "embed")),
    }
    if config.qkv_bias:
        weights |= {
            "q_bias": ((n, h), ("heads", "head")),
            "k_bias": ((k, h), ("kv_heads", "head")),
            "v_bias": ((k, h), ("kv_heads", "head")),
        }
    return weights


def weights(config: ModelConfig) -> Params:
    """The whole parameter tree with (shape, logical axes) pairs as leaves."""
    v, d = config.vocab_size, config.hidden_size
    tree: Params = {
        "embed": ((v, d), ("vocab", "embed")),
        "layers": {
            name: ((config.num_layers, *shape), ("layers", *axes))
            for name, (shape, axes) in layer_weights(config).items()
        },
        "norm": ((d,), (None,)),
    }
    if not config.tie_embeddings:
        tree["head"] = ((d, v), ("embed", "vocab"))
    return tree


def map_weights(function: Callable[[tuple[int, ...], tuple[str | None, ...]], Any], tree: Params):
    """Apply `function(shape, axes)` to each leaf of a tree made by `weights`."""
    return jax.tree.map(
        lambda leaf: function(*leaf), tree, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )


def count_parameters(config: ModelConfig) -> int:
    """Number of parameters; a tied head counts once."""
    return sum(jax.tree.leaves(map_weights(lambda shape, _: math.prod(shape), weights(config))))


def rope_frequencies(config: ModelConfig) -> Float[np.ndarray, "half"]:
    """Rotary frequencies in radians per position, with the `llama3` scaling where configured.

    Source: Llama 3.1 reference code. Wavelengths longer than the original context divided by
    `low_freq_factor` are stretched by `factor`, short ones kept, those between interpolated.
    """
    half = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    frequencies = 1.0 / config.rope_theta**half
    scaling = config.rope_scaling
    if scaling is not None:
        turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = frequencies * (smooth + (1 - smooth) / scaling.factor)
    return frequencies.astype(np.float32)


def rope_table(
    config: ModelConfig, positions: Int[Array, "*B T"]
) -> tuple[Float[Array, "*B T half"], Float[Array, "*B T half"]]:
    """Cosine and sine of the rotary angles at `positions`, float32."""
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "*B T heads H"], rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary embedding, halves split as Hugging Face stores them."""
    cos, sin = rope[0][..., None, :], rope[1][..., None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


class Layer(nnx.Module):
    """One transformer block: attention and gated feed-forward, each with its residual.

    Decoding may hand it matrices stored output-major, each [O I] (`output_major` below), or still
    split over `fsdp` (`sharded`): then all rows meet at each shard of the features, and partial
    products travel instead of weights (Pope et al. 2022, 3.2.2).
    """

    attention_norm: nnx.Param
    q: nnx.Param
    k: nnx.Param
    v: nnx.Param
    o: nnx.Param
    q_bias: nnx.Param
    k_bias: nnx.Param
    v_bias: nnx.Param
    mlp_norm: nnx.Param
    gate: nnx.Param
    up: nnx.Param
    down: nnx.Param

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        out_scale = 0.02 / math.sqrt(2 * config.num_layers)
        for name, (shape, _) in layer_weights(config).items():
            if name.endswith("norm"):
                value = jnp.ones(shape)
            elif name.endswith("bias"):
                value = jnp.zeros(shape)
            else:
                scale = out_scale if name in ("o", "down") else 0.02
                value = scale * jax.random.normal(rngs.params(), shape)
            setattr(self, name, nnx.Param(value))

    def __call__(
        self,
        x: Float[Array, "*B T D"],
        rope: tuple[jax.Array, jax.Array],
        attend: Attend,
        output_major: bool = False,
        sharded: bool = False,
    ) -> tuple[Float[Array, "*B T D"], tuple[jax.Array, jax.Array]]:
        """Return the block's output and its rotated keys and values [.. T K H]."""
        config = self.config

        def pin(x, first, *last):
            # With sharded weights, rows or features are apart, as the next product wants them.
            between = (None,) * (x.ndim - 1 - len(last))
            return constrain(x, first, *between, *last) if sharded else x

        def heads(h, weight, count):
            if output_major:
                return project_rows(h, weight).reshape(*h.shape[:-1], count, config.head_dim)
            axis = "heads" if count == config.num_heads else "kv_heads"
            return pin(project(h, weight), "batch", axis, None)

        x = pin(x, None, "embed")
        h = rms_norm(x, self.attention_norm[...], config.rms_norm_eps)
        q = heads(h, self.q[...], config.num_heads)
        k = heads(h, self.k[...], config.num_kv_heads)
        v = heads(h, self.v[...], config.num_kv_heads)
        if config.qkv_bias:
            q, k, v = (
                add_bias(q, self.q_bias[...]),
                add_bias(k, self.k_bias[...]),
                add_bias(v, self.v_bias[...]),
            )
        q, k = rotate(q, rope), rotate(k, rope)
        mixed = pin(attend(q, k, v).reshape(*x.shape[:-1], -1), None, "heads")
        if output_major:
            x = x + project_rows(mixed, self.o[...])
        else:
            x = x + project(mixed, self.o[...].reshape(mixed.shape[-1], -1))
        x = pin(x, None, "embed")
        h = rms_norm(x, self.mlp_norm[...], config.rms_norm_eps)
        return pin(x + self.feed_forward(h, output_major), None, "embed"), (k, v)

    def feed_forward(self, h: Float[Array, "*B T D"], output_major: bool) -> jax.Array:
        """The gated feed-forward part, without norm and residual."""
        gate, up, down = self.gate[...], self.up[...], self.down[...]
        if not output_major:
            return project(gated(project(h, gate), project(h, up)), down)
        # The wide activations stay [F ..]: turning them costs more than the products' difference.
        h = jnp.moveaxis(h, -1, 0)
        product = functools.partial(jnp.tensordot, axes=1, precision=exact(h.dtype))
        wide = gated(product(gate, h), product(up, h))
        return jnp.moveaxis(product(down, wide), 0, -1)


@functools.cache
def _layer_definition(config: ModelConfig) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Layer(config, nnx.Rngs(0))))[0]


def layer(config: ModelConfig, layer_params: Params) -> Layer:
    """The NNX module over one layer's arrays."""
    state = nnx.State({name: nnx.Param(value) for name, value in layer_params.items()})
    return nnx.merge(_layer_definition(config), state)


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Random float32 parameters: normal 0.02, residual outputs scaled by 1 / sqrt(2 L)."""
    embed_key, head_key, layers_key = jax.random.split(key, 3)

    def one(layer_key):
        module = Layer(config, nnx.Rngs(params=layer_key))
        return nnx.to_pure_dict(nnx.state(module, nnx.Param))

    params: Params = {
        "embed": 0.02 * jax.random.normal(embed_key, (config.vocab_size, config.hidden_size)),
        "layers": jax.vmap(one)(jax.random.split(layers_key, config.num_layers)),
        "norm": jnp.ones(config.hidden_size),
    }
    if not config.tie_embeddings:
        shape = (config.hidden_size, config.vocab_size)
        params["head"] = 0.02 * jax.random.normal(head_key, shape)
    return params


def gathered(
    config: ModelConfig, layer_params: Params, dtype: Any, sharded: bool = False
) -> Params:
    """One layer's weights cast to `dtype` and gathered over `fsdp`, still split over `tensor`.

    With `sharded` they are only cast, and stay split over `fsdp` too.
    """
    return {
        name: constrain(layer_params[name].astype(dtype), *axes_in_use(axes, sharded))
        for name, (_, axes) in layer_weights(config).items()
    }


def axes_in_use(axes: tuple[str | None, ...], sharded: bool = False) -> tuple[str | None, ...]:
    """Logical axes by which a weight is split where it is used: `fsdp` only if `sharded`."""
    return axes if sharded else tuple(None if axis == "embed" else axis for axis in axes)


def output_major(config: ModelConfig, layer_params: Params) -> Params:
    """One layer's weights with each matrix as [O I] (see `project_rows`)."""
    inputs = {"o": 2}  # axes that are summed over; 1 for the others

    def turned(name, weight, axes):
        if len(axes) == 1 or name.endswith("bias"):
            return weight
        summed = inputs.get(name, 1)
        length = math.prod(weight.shape[:summed])
        return weight.reshape(length, -1).T

    return {
        name: turned(name, layer_params[name], axes)
        for name, (_, axes) in layer_weights(config).items()
    }


def head_weights(config: ModelConfig, params: Params) -> Params:
    """The one weight that `unembed` needs, by its name."""
    name = "embed" if config.tie_embeddings else "head"
    return {name: params[name]}


def gathered_head(config: ModelConfig, params: Params, dtype: Any, sharded: bool = False) -> Params:
    """What `unembed` needs, cast to `dtype` and gathered as by `gathered`."""
    ((name, weight),) = head_weights(config, params).items()
    axes = weights(config)[name][1]
    return {name: constrain(weight.astype(dtype), *axes_in_use(axes, sharded))}


def embed(config: ModelConfig, params: Params, tokens: Int[Array, "*B T"], dtype: Any) -> jax.Array:
    """Token embeddings [.. T D]."""
    return look_up(params["embed"], tokens, dtype)


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
        x, kv = layer(config, gathered(config, layer_params, dtype))(x, rope, attend)
        return x, kv if keep_kv else None

    if remat == "layer":
        body = jax.checkpoint(body, prevent_cse=False)
    elif remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        body = jax.checkpoint(body, policy=policy, prevent_cse=False)
    x, kv = jax.lax.scan(body, x, params["layers"])
    return rms_norm(x, params["norm"], config.rms_norm_eps), kv


def unembed(config: ModelConfig, params: Params, x: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
    """Logits in float32."""
    if config.tie_embeddings:
        head, equation = params["embed"], "...d,vd->...v"
    else:
        head, equation = params["head"], "...d,dv->...v"
    head = head.astype(x.dtype)
    wide = {"preferred_element_type": jnp.float32, "precision": exact(x.dtype)}
    return jnp.einsum(equation, x, head, **wide)


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
