"""Where arrays live: the device mesh and the one table of partition rules."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alphamed_jax.errors import UserError

AnyMesh = Mesh | AbstractMesh
AXES = ("replica", "fsdp", "tensor")

# Logical axis -> mesh axes. Activations are split over rows, weights over both mesh axes:
# `fsdp` shards are gathered when used, `tensor` shards are used as they are.
RULES: dict[str | None, tuple[str, ...]] = {
    "batch": ("replica", "fsdp"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),
    "head": (),
    None: (),
}


def parse_mesh(text: str, devices: int | None = None, flag: str = "--mesh") -> tuple[int, int, int]:
    """Read `--mesh` into (replica, fsdp, tensor); `auto` puts all `devices` on fsdp.

    Args:
      flag: that gave it, for the error.

    Raises:
      UserError: the text is not `auto` nor two or three positive numbers joined by `x`.
    """
    if text == "auto":
        return (1, devices or 1, 1)
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(
            f"{flag} {text!r}: expected auto, FSDPxTENSOR (8x8) or REPLICAxFSDPxTENSOR (2x8x8)."
        )
    sizes = [int(part) for part in parts]
    return (1, *sizes) if len(sizes) == 2 else tuple(sizes)  # type: ignore[return-value]


def slices_of(devices: Sequence[Any]) -> int:
    """Number of TPU slices that devices are on: within one, chips have an interconnect."""
    # GPUs have such an index, too, but it is their host's, and nothing to split an axis by.
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def device_grid(sizes: tuple[int, int, int], devices: Sequence[Any]) -> np.ndarray:
    """Devices as an array [replica fsdp tensor]; of a TPU, each axis along the torus where it fits.

    JAX gives the axes of the torus away from the last axis of the mesh on, so `tensor`, which sends
    most often, lies along whole axes of the torus where their product is its size. Else it is split
    over parts of them (without that JAX refuses a tensor axis of 8 on v6e:4x4 or v5p:4x4x4): its
    devices are then a compact block, but no ring. `fsdp` takes what is left. Devices that are no
    TPUs stand in their own order.

    Several slices lie along the replica axis. Of an update the network between them carries the
    gradients' sum and rows of the embedding, and nothing else.

    Raises:
      UserError: the replica axis is no multiple of the slices.
    """
    slices, (replica, fsdp, tensor) = slices_of(devices), sizes
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    if replica % slices:
        raise UserError(
            f"--mesh {replica}x{fsdp}x{tensor}: these are {slices} slices, which only the "
            f"data-centre network joins; the first of three numbers (replica) must be {slices} or "
            f"a multiple, as {slices}x{len(devices) // slices // tensor or 1}x{tensor}."
        )
    within = (replica // slices, fsdp, tensor)
    return mesh_utils.create_hybrid_device_mesh(
        within, (slices, 1, 1), devices, allow_split_physical_axes=True
    )


def sizes_for(text: str, devices: Sequence[Any]) -> tuple[int, int, int]:
    """Read `--mesh` for these devices; `auto` makes each slice a replica, and the rest fsdp.

    Raises:
      UserError: see `parse_mesh`, or the product of the sizes is not the number of devices.
    """
    sizes = parse_mesh(text, len(devices))
    if text == "auto":
        slices = slices_of(devices)
        sizes = (slices, len(devices) // slices, 1)
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"--mesh {text} needs {math.prod(sizes)} devices, but there are {len(devices)} "
            f"({devices[0].platform}). Use --mesh auto or sizes whose product is {len(devices)}."
        )
    return sizes


def make_mesh(text: str) -> Mesh:
    """Build the mesh over all devices of all processes.

    Raises:
      UserError: the product of the sizes is not the number of devices, or the replica axis is
        no multiple of the slices.
    """
    devices = jax.devices()
    return Mesh(
        device_grid(sizes_for(text, devices), devices), AXES, axis_types=(AxisType.Auto,) * 3
    )


def other_mesh(text: str | None, mesh: AnyMesh, flag: str) -> AnyMesh:
    """A mesh of other sizes over the devices of `mesh`, in their order.

    In this order an axis that is cut lies along a part of its axis of the torus, and arrays change
    from one mesh to the other among neighbours.

    Args:
      text: its sizes, as `--mesh` takes them; None: `mesh` itself.
      flag: that gave it, for the error.

    Raises:
      UserError: the text is not two or three positive numbers joined by `x`, their product is not
        the number of devices, or the replica axis is no multiple of the slices.
    """
    if text is None:
        return mesh
    sizes = parse_mesh(text, mesh.size, flag)
    if math.prod(sizes) != mesh.size:
        raise UserError(
            f"{flag} {text} needs {math.prod(sizes)} devices, but --mesh has {mesh.size}: it is "
            "another order of the same devices."
        )
    if isinstance(mesh, AbstractMesh):
        return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)
    slices = slices_of(list(mesh.devices.flat))
    if sizes[0] % slices:
        raise UserError(
            f"{flag} {text}: these are {slices} slices, which only the data-centre network joins; "
            f"the first of three numbers (replica) must be {slices} or a multiple."
        )
    return Mesh(mesh.devices.reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def mesh_name(mesh: Any) -> str:
    """Its sizes as `--mesh` takes them."""
    replica, *sizes = mesh.shape.values()
    return "x".join(map(str, sizes if replica == 1 else (replica, *sizes)))


def single_device_mesh() -> Mesh:
    """A 1x1x1 mesh over the first local device."""
    return Mesh(
        np.array(jax.local_devices()[:1]).reshape(1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3
    )


def data_shards(mesh: Any) -> int:
    """Number of shards of the batch axis."""
    return mesh.shape["replica"] * mesh.shape["fsdp"]


def context_data_shards() -> int:
    """`data_shards` of the mesh in context while tracing; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else data_shards(mesh)


def spec(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Any) -> P:
    """Partition spec of an array with these logical axes.

    An axis whose length the mesh does not divide stays whole (a vocabulary of 32,001, say);
    heads are checked beforehand by `check_heads`, so only key/value heads fewer than the
    tensor axis and odd widths ever do.
    """
    entries: list[str | tuple[str, ...] | None] = []
    for axis, length in zip(axes, shape, strict=True):
        names = tuple(name for name in RULES[axis] if mesh.shape[name] > 1)
        ways = math.prod(mesh.shape[name] for name in names)
        if not names or length % ways:
            entries.append(None)
        else:
            entries.append(names)
    return P(*entries)


def sharding(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: AnyMesh) -> NamedSharding:
    """Named sharding of an array with these logical axes."""
    return NamedSharding(mesh, spec(axes, shape, mesh))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pin an intermediate array to its logical axes; without a mesh in context, do nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes, x.shape, mesh))


def mesh_of(tree: Any) -> Any:
    """The mesh that a pytree of arrays lives on (a 1x1x1 mesh for single-device arrays).

    That of shapes alone may be an `AbstractMesh`, whose devices are nowhere.
    """
    for leaf in jax.tree.leaves(tree):
        if isinstance(getattr(leaf, "sharding", None), NamedSharding):
            return leaf.sharding.mesh
    return single_device_mesh()


def device_put_global(array: np.ndarray, axes: tuple[str | None, ...], mesh: Mesh) -> jax.Array:
    """Put a host array, the same in every process, on the mesh."""
    layout = sharding(axes, array.shape, mesh)
    return jax.make_array_from_callback(array.shape, layout, lambda index: array[index])


def host_get(tree: Any, mesh: Mesh) -> Any:
    """Copy a pytree of arrays to NumPy in every process, whichever process holds them."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), _replicate(mesh)(tree))


@functools.cache
def _replicate(mesh: Mesh) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


def check_heads(num_heads: int, num_kv_heads: int, mesh: AnyMesh, flag: str = "--mesh") -> None:
    """Refuse a tensor axis that would cut a head in two.

    Key/value heads may be fewer than the axis: then they are kept whole on each shard.

    Args:
      flag: that gave the mesh, for the error.

    Raises:
      UserError: the tensor axis does not divide the query heads, or neither divides nor is a
        multiple of the key/value heads.
    """
    tensor = mesh.shape["tensor"]
    if num_heads % tensor or (num_kv_heads % tensor and tensor % num_kv_heads):
        fits = [
            t
            for t in range(1, num_heads + 1)
            if num_heads % t == 0 and (num_kv_heads % t == 0 or t % num_kv_heads == 0)
        ]
        raise UserError(
            f"{flag}: the tensor axis ({tensor}) does not fit {num_heads} query and "
            f"{num_kv_heads} key/value heads; sizes that do: {', '.join(map(str, fits))}."
        )
