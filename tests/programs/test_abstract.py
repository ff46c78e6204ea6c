"""Functions run on shapes alone, against what they give when they are run."""

import functools

import jax
import jax.numpy as jnp
import plans
import pytest
from helpers import TINY, mesh_like

from alphamed_jax.model.mesh import constrain, sharding
from alphamed_jax.model.modules import init
from alphamed_jax.programs import PROGRAMS
from alphamed_jax.programs.abstract import result_of
from alphamed_jax.randomness import random_key
from alphamed_jax.rl.decode_weights import make_decode_weights


def array(shape, *axes, mesh):
    named = axes + (None,) * (len(shape) - len(axes))
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding(named, shape, mesh))


def test_a_result_is_split_as_the_code_says():
    mesh = mesh_like("4x2")

    @jax.jit
    def inner(x):
        return constrain(2 * x, None, "mlp"), x.sum()

    def function(x, y):
        pinned, total = inner(x)
        return {"pinned": pinned, "grown": pinned + 1, "same": y, "total": total, "free": x @ y}

    given = array((8, 6), "batch", mesh=mesh), array((6, 16), "embed", mesh=mesh)
    found = result_of(mesh, function, *given)
    split = {name: x.sharding.spec for name, x in found.items()}
    assert split["pinned"] == split["grown"] == jax.P(None, ("tensor",))
    assert split["same"] == given[1].sharding.spec
    assert split["total"] == jax.P()
    # Where nothing is said, by rows.
    assert split["free"] == jax.P(("fsdp",), None)


@pytest.mark.parametrize("sharded", [False, True])
def test_decode_weights_lie_as_the_compiled_programs_put_them(sharded):
    # Given weights on a mesh and what training makes of them,
    step = plans.step(plans.config(weights="sharded" if sharded else "gathered"))
    mesh = mesh_like("4x2")
    where = jax.tree.map(lambda x: jax.NamedSharding(mesh, x.sharding.spec), step.state.params)
    params = jax.tree.map(jax.device_put, init(TINY, random_key(0)), where)
    make = functools.partial(make_decode_weights, TINY, dtype=jnp.bfloat16, sharded=sharded)
    with jax.set_mesh(mesh):
        real = make(params)
    # then the planned ones, made without any array or device, are the same.
    planned = step.decode_weights
    assert jax.tree.structure(real) == jax.tree.structure(planned)
    for there, here in zip(jax.tree.leaves(real), jax.tree.leaves(planned), strict=True):
        assert (there.shape, there.dtype) == (here.shape, here.dtype)
        assert there.sharding.shard_shape(there.shape) == here.sharding.shard_shape(here.shape)


# Trajectories holding shapes are refused by the type checker of the tests, not by JAX.
@pytest.mark.parametrize(
    "program", [p for p in PROGRAMS if p.name != "gather"], ids=lambda program: program.name
)
def test_every_program_takes_its_arguments(program):
    # On this machine's simulated devices: traced and lowered, not compiled.
    step = plans.step(plans.config("4x2", slots=8), topology="cpu:8")
    there = type(step)(step.model, mesh_like("4x2"), step.shape, step.objective)
    lowered = program.lower(there)
    given = program.arguments(there)
    arrays = [x for x in jax.tree.leaves(given) if isinstance(x, jax.ShapeDtypeStruct)]
    # The function takes all of the arrays, and no others.
    assert len(jax.tree.leaves(lowered.in_avals)) == len(arrays)
