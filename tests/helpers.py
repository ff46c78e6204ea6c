"""Small models and batches that several tests build on."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from alphamed_jax.config import LossConfig, OptimizerConfig
from alphamed_jax.model import network
from alphamed_jax.model.mesh import AXES, parse_mesh, sharding
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.update import Settings

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="compiling for TPUs needs libtpu: pip install -e '.[plan]'",
)

TINY = network.ModelConfig(
    vocab_size=320,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    tie_embeddings=True,
)


def tiny_params(config=TINY, seed=0, sharpness=4.0):
    """Random weights, scaled so that the next-token distribution is far from uniform."""
    params = network.init(config, jax.random.key(seed))
    return jax.tree.map(lambda x: x * sharpness if x.ndim > 1 else x, params)


def mesh_like(text):
    """A mesh over the first of the eight simulated devices."""
    sizes = parse_mesh(text)
    devices = np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)


def on_mesh(params, text, config=TINY):
    """The same weights, split over a mesh."""
    mesh = mesh_like(text)
    layout = network.map_weights(lambda s, a: sharding(a, s, mesh), network.weights(config))
    return jax.tree.map(jax.device_put, params, layout)


def make_settings(config=TINY, *, sampling=None, loss=None, optimizer=None, **compute):
    """Settings of a compiled step; float32, no remat, unless told otherwise."""
    return Settings(
        model=config,
        sampling=sampling or Sampling(),
        loss=loss or LossConfig(),
        optimizer=optimizer or OptimizerConfig(learning_rate=1e-3, warmup_updates=0),
        compute=Compute(jnp.dtype("float32"), **compute),
        total_updates=10,
        constant_length=24,
    )
