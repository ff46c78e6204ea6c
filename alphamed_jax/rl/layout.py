"""Weights as decoding wants them, made once per rollout."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from alphamed_jax.model import llama
from alphamed_jax.model.llama import LlamaConfig, Params
from alphamed_jax.model.mesh import constrain


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights"],
    meta_fields=["output_major", "sharded"],
)
@dataclass(frozen=True)
class Layout:
    """Weights as decoding wants them."""

    weights: Params
    output_major: bool = False
    """See `llama.project_rows`."""
    sharded: bool = False
    """Still split over `fsdp`; see `llama.Layer`."""


@functools.partial(jax.jit, static_argnames=("config", "dtype", "output_major", "sharded"))
def layer_layout(
    config: LlamaConfig,
    layers: Params,
    i: Int[Array, ""],
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
) -> Params:
    """Layer `i` of the stacked weights as decoding wants it: one program for all layers."""
    layer = llama.gathered(config, {name: w[i] for name, w in layers.items()}, dtype, sharded)
    return llama.output_major(config, layer) if output_major else layer


@functools.partial(jax.jit, static_argnames=("config", "dtype", "output_major", "sharded"))
def head_layout(
    config: LlamaConfig,
    params: Params,
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
) -> Params:
    """Embedding table and head as decoding wants them."""
    head = llama.gathered_head(config, params, dtype, sharded)
    if output_major:
        head = {name: w if name == "embed" else w.T for name, w in head.items()}
    axes = llama.axes_in_use(("vocab", "embed"), sharded)
    return {"embed": constrain(params["embed"].astype(dtype), *axes)} | head


def decode_layout(
    config: LlamaConfig,
    params: Params,
    dtype: Any,
    output_major: bool = False,
    sharded: bool = False,
) -> Layout:
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
    return Layout({"layers": layers, "norm": params["norm"]} | table, output_major, sharded)
