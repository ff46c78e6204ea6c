"""Weights as decoding wants them, made once per rollout."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alphamed_jax.model import network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.mesh import constrain
from alphamed_jax.model.weights import Head, LowRank


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights"],
    meta_fields=["output_major", "sharded"],
)
@dataclass(frozen=True)
class DecodeWeights:
    """Weights as decoding wants them."""

    weights: Params
    output_major: bool = False
    """Matrices are [O I], for few rows on a CPU; logits then come [V B]."""
    sharded: bool = False
    """Still split over `fsdp`; see `weights.Split`."""

    def placed(self, x: Float[Array, "*B D"]) -> jax.Array:
        """Hidden states as the layers take them: rows apart, or features where these are split."""
        between = (None,) * (x.ndim - 2)
        if self.sharded:
            return constrain(x, None, *between, "embed")
        return constrain(x, "batch", *between, None)

    def logits(self, config: ModelConfig, x: Float[Array, "B D"]) -> jax.Array:
        """Logits in float32 [B V]; [V B] where the weights are `output_major`."""
        (array,) = network.head_weights(config, self.weights).values()
        x = constrain(x, None, "embed") if self.sharded else x
        if self.output_major:
            return constrain(Head(array, True).by_token(x), "vocab", "batch")
        return constrain(Head(array, config.tie_embeddings)(x), "batch", "vocab")


_HOW = ("output_major", "sharded", "int8")


@functools.partial(jax.jit, static_argnames=("config", "dtype", *_HOW))
def layer_decode_weights(
    config: ModelConfig,
    layers: Params,
    i: Int[Array, ""],
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
    int8: bool = False,
) -> Params:
    """Layer `i` of the stacked weights as decoding wants it: one program for all layers.

    In float32 an adapter is added to its weight, which costs nothing at each step. In 16 or 8 bits
    it stays beside: a weight there has too few digits for the small sums of a fresh adapter, and
    what is sampled would be the frozen model.
    """
    layer = {name: jax.tree.map(lambda x: x[i], w) for name, w in layers.items()}
    if jnp.dtype(dtype) == jnp.float32 and not int8:
        layer = {n: w.merged() if isinstance(w, LowRank) else w for n, w in layer.items()}
    return network.gathered(config, layer, dtype, output_major, sharded, int8)


@functools.partial(jax.jit, static_argnames=("config", "dtype", *_HOW))
def head_decode_weights(
    config: ModelConfig,
    params: Params,
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
    int8: bool = False,
) -> Params:
    """Embedding table and head as decoding wants them.

    In 8 bits is the head, as it is read at every step; of a table of its own only the rows of the
    tokens are.
    """
    head = network.gathered_head(config, params, dtype, sharded, int8).array
    if config.tie_embeddings:
        return {"embed": head}
    if output_major:
        head = jax.tree.map(jnp.transpose, head)  # a scale has one axis
    axes = network.axes_in_use(("vocab", "embed"), sharded)
    return {"embed": constrain(params["embed"].astype(dtype), *axes), "head": head}


def make_decode_weights(
    config: ModelConfig,
    params: Params,
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
    int8: bool = False,
) -> DecodeWeights:
    """The weights as decoding wants them, made once per rollout.

    Cast to the compute dtype, gathered over `fsdp` unless `sharded`, and each layer's weights
    arrays of their own: a slice of a stacked array inside the loop would be copied at every step.

    Args:
      int8: matrices and head in 8 bits, made of the master weights. Biases, norms and adapters
        are in the compute dtype.
    """
    how = {"output_major": output_major, "sharded": sharded, "int8": int8}
    layers = [
        layer_decode_weights(config, params["layers"], np.int32(i), dtype, **how)
        for i in range(config.num_layers)
    ]
    ends = {name: w for name, w in params.items() if name != "layers"}
    table = head_decode_weights(config, ends, dtype, **how)
    return DecodeWeights({"layers": layers, "norm": params["norm"]} | table, output_major, sharded)
