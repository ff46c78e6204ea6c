"""Functions run on shapes alone: what they return, and how the code splits it over the mesh."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from alphamed_jax.model.mesh import AnyMesh, sharding


def struct(mesh: AnyMesh, x: Any, *axes: str | None) -> jax.ShapeDtypeStruct:
    """Shape and dtype of `x`, its leading axes split as the logical ones named, the rest whole."""
    named = axes + (None,) * (len(x.shape) - len(axes))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(named, x.shape, mesh))


def result_of(mesh: AnyMesh, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns for abstract arguments, with the shardings that its code states.

    The function is traced, not compiled, so that a mesh of devices that are nowhere will do. An
    array is split as `mesh.constrain` says of it or of what it is computed from element by element;
    arguments that are handed on stay as they are. Where the code says nothing, the first axis is
    taken to be split over the data shards, as everything is that belongs to a prompt or response.

    Args:
      arguments: pytrees of `jax.ShapeDtypeStruct`; anything else is bound beforehand.
    """
    abstract = mesh if isinstance(mesh, AbstractMesh) else mesh.abstract_mesh
    with jax.sharding.use_abstract_mesh(abstract):
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    given = [getattr(x, "sharding", None) for x in jax.tree.leaves(arguments)]
    found = map(_splits(traced.jaxpr, given), traced.jaxpr.outvars)

    def placed(x: Any, spec: PartitionSpec | None) -> Any:
        if spec is None:
            return struct(mesh, x, *(("batch",) if x.shape else ()))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, map(placed, leaves, found))


def _splits(program: Any, given: list[Any]) -> Callable[[Any], PartitionSpec | None]:
    """How the values of a traced program are split; None: it does not say.

    Args:
      given: shardings, or partition specs, of the program's arguments.
    """
    makers = {out: line for line in program.eqns for out in line.outvars}
    arguments = dict(zip(program.invars, given, strict=True))

    def find(value: Any) -> PartitionSpec | None:
        if isinstance(value, core.Literal):
            return None
        if value not in makers:
            there = arguments.get(value)
            return there.spec if isinstance(there, NamedSharding) else there
        line = makers[value]
        if line.primitive.name == "sharding_constraint":
            return line.params["sharding"].spec
        if line.primitive.name in ("jit", "pjit"):
            inner = line.params["jaxpr"].jaxpr
            return within(line.outvars[0])(inner.outvars[line.outvars.index(value)])
        same = (x for x in line.invars if getattr(x.aval, "shape", None) == value.aval.shape)
        return next((spec for x in same if (spec := find(x)) is not None), None)

    @functools.cache
    def within(first: Any) -> Callable[[Any], PartitionSpec | None]:
        """The same within a program that is called, by the first of its results."""
        line = makers[first]
        return _splits(line.params["jaxpr"].jaxpr, [find(x) for x in line.invars])

    return find


def of_shapes(record: type, **fields: Any) -> Any:
    """A dataclass of arrays that holds their shapes instead, which its constructor would refuse."""
    made = object.__new__(record)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def device_bytes(tree: Any) -> int:
    """Bytes on one device of arrays that are known by shape, dtype and sharding."""

    def size(x: Any) -> int:
        shape = x.sharding.shard_shape(x.shape) if x.sharding is not None else x.shape
        return math.prod(shape) * x.dtype.itemsize

    return sum(size(x) for x in jax.tree.leaves(tree))
