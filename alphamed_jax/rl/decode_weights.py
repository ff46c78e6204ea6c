"""Weights as decoding wants them, made once per rollout."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from alphamed_jax.model import network
from alphamed_jax.model.mesh import constrain
from alphamed_jax.model.network import ModelConfig, Params


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
    """See `network.project_rows`."""
    sharded: bool = False
    """Still split over `fsdp`; see `network.Layer`."""


@functools.partial(jax.jit, static_argnames=("config", "dtype", "output_major", "sharded"))
def layer_layout(
    config: ModelConfig,
    layers: Params,
    i: Int[Array, ""],
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
) -> Params:
    """Layer `i` of the stacked weights as decoding wants it: one program for all layers."""
    layer = network.gathered(config, {name: w[i] for name, w in layers.items()}, dtype, sharded)
    return network.output_major(config, layer) if output_major else layer


@functools.partial(jax.jit, static_argnames=("config", "dtype", "output_major", "sharded"))
def head_layout(
    config: ModelConfig,
    params: Params,
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
) -> Params:
    """Embedding table and head as decoding wants them."""
    head = network.gathered_head(config, params, dtype, sharded)
    if output_major:
        head = {name: w if name == "embed" else w.T for name, w in head.items()}
    axes = network.axes_in_use(("vocab", "embed"), sharded)
    return {"embed": constrain(params["embed"].astype(dtype), *axes)} | head


def make_decode_weights(
    config: ModelConfig,
    params: Params,
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
) -> DecodeWeights:
    """The weights as decoding wants them, made once per rollout.

    Cast to the compute dtype, gathered over `fsdp` unless `sharded`, and each layer's weights
    arrays of their own: a slice of a stacked array inside the loop would be copied at every step.
    """
    layers = [
        layer_layout(config, params["layers"], np.int32(i), dtype, output_major, sharded)
        for i in range(config.num_layers)
    ]
    ends = {name: w for name, w in params.items() if name != "layers"}
    table = head_layout(config, ends, dtype, output_major, sharded)
    return DecodeWeights({"layers": layers, "norm": params["norm"]} | table, output_major, sharded)
