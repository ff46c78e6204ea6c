"""Small models and batches that several tests build on."""

import dataclasses
import importlib.util
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from alphamed_jax import embedded
from alphamed_jax.compiled import costs, hlo
from alphamed_jax.config import LossConfig, OptimizerConfig
from alphamed_jax.model import modules, network
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import AXES, mesh_of, parse_mesh, sharding
from alphamed_jax.rl.batch import gather
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.policy import Policy, make_compute, make_sampling
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.update import Objective

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="compiling for TPUs needs libtpu: pip install -e '.[plan]'",
)

TINY = ModelConfig(
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
    params = modules.init(config, jax.random.key(seed))
    return jax.tree.map(lambda x: x * sharpness if x.ndim > 1 else x, params)


def mesh_like(text):
    """A mesh over the first of the eight simulated devices."""
    sizes = parse_mesh(text)
    devices = np.array(some_devices(int(np.prod(sizes)))).reshape(sizes)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)


def some_devices(count):
    """So many devices; where ALPHAMED_TESTS_ON names a platform with fewer the test is skipped."""
    devices = jax.devices()
    if len(devices) < count:
        pytest.skip(f"needs {count} devices, and there are {len(devices)}")
    return devices[:count]


def on_mesh(params, text, config=TINY):
    """The same weights, split over a mesh."""
    mesh = mesh_like(text)
    layout = network.map_weights(lambda s, a: sharding(a, s, mesh), network.weights(config))
    return jax.tree.map(jax.device_put, params, layout)


def make_objective(config=TINY, *, sampling=None, loss=None, optimizer=None, **compute):
    """What a compiled update depends on; float32, no remat, unless told otherwise."""
    return Objective(
        model=config,
        sampling=sampling or Sampling(),
        loss=dataclasses.replace(loss or LossConfig(), constant_length=24),
        optimizer=optimizer or OptimizerConfig(learning_rate=1e-3, warmup_updates=0),
        compute=Compute(jnp.dtype("float32"), **compute),
        total_updates=10,
    )


def gathered(trajectories, lengths, advantages, layout):
    """Micro-batches on the mesh that the trajectories live on."""
    mesh = mesh_of(trajectories)
    with jax.set_mesh(mesh):
        return gather(trajectories, lengths, advantages, layout, mesh)


def a_policy(
    config, model=TINY, mesh="1x1", *, automaton=None, stop_ids=(), tokenizer=None, width=0
):
    """A policy on the first of the simulated devices."""
    mesh = mesh_like(mesh) if isinstance(mesh, str) else mesh
    with jax.set_mesh(mesh):
        key = jax.random.key(0)
    return Policy(
        folder=Path(),
        model=model,
        mesh=mesh,
        update_mesh=mesh,
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        prompt=config.prompt,
        automaton=automaton or AnswerAutomaton.from_token_bytes([b"x"]),
        sampling=make_sampling(config),
        compute=make_compute(config, model, "cpu"),
        key=key,
        prompt_width=width,
    )


def write_first_questions(path, count):
    """The first training questions of the quickstart, as a file of our own schema."""
    lines = embedded.TRAIN.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:count]), "utf-8")
    return path


def small_disk_at(folder, size):
    """Yields a folder that is a file system of this size; for fixtures."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may make a file system of its own")
    yield folder
    subprocess.run(["umount", folder], check=True)


def bytes_per_step(text):
    """Bytes of HBM that one iteration of the largest loop reads and writes; of all without one."""
    program = hlo.parse(text)
    return costs.computation_traffic(program, costs.step_body(program) or program.entry).total
