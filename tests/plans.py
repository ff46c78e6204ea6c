"""A small model planned for simulated devices, for the planner's tests."""

import jax
from helpers import TINY

from alphamed_jax.compiled.work import Work
from alphamed_jax.config import Config, RolloutConfig, UpdateConfig
from alphamed_jax.model import mesh
from alphamed_jax.planning.cost import Cost
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.step import planned_step
from alphamed_jax.programs import PROGRAMS

GPU = "h100:8"


def named(name):
    """The program of a name."""
    return {program.name: program for program in PROGRAMS}[name]


def leaves(tree):
    """Arrays of a tree, known by shape and sharding."""
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.ShapeDtypeStruct)]


def mesh_name(array):
    """The mesh that an array lies on, as `--mesh` names it."""
    return mesh.mesh_name(array.sharding.mesh)


def config(mesh="4x2", *, update=None, **settings):
    """8 prompts x 4 responses of up to 512 tokens."""
    rollout = {"prompts": 8, "group_size": 4, "max_new_tokens": 512} | settings
    return Config(
        model="tiny",
        mesh=mesh,
        rollout=RolloutConfig(**rollout),
        update=UpdateConfig(**{"micro_batch": 16} | (update or {})),
    )


def step(of=None, topology=GPU, prompt_tokens=64):
    """Its step on eight GPUs, which are nowhere."""
    of = of or config()
    return planned_step(of, TINY, devices_for(topology, of.mesh, PlanFlags()), prompt_tokens)


def cost(flops=0, traffic=0, comm_bytes=0, *, per_iteration=(0, 0, 0), peak=0, refused=""):
    """A program's cost of round numbers."""
    work = Work(flops, traffic, comm_bytes)
    return Cost(work, Work(*per_iteration), {}, {}, peak, refused)
