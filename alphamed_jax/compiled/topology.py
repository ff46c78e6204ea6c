"""TPU topologies that this machine does not have: devices to compile for, and what a chip can do.

libtpu compiles real TPU programs on any Linux machine; only running them takes a TPU.
"""

import importlib.util
import math
import os
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from alphamed_jax.errors import UserError, nearest
from alphamed_jax.model.mesh import AXES, device_grid, parse_mesh

KNOWN = ("v4:2x2x1", "v4:2x2x2", "v4:4x4x4", "v4:4x4x8")
KNOWN += ("v5e:1x1", "v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:16x16")
KNOWN += ("v5p:2x2x1", "v5p:2x2x2", "v5p:4x4x4", "v5p:4x4x8", "v5p:8x8x8")
KNOWN += ("v6e:1x1", "v6e:2x2", "v6e:2x4", "v6e:4x4", "v6e:4x8", "v6e:8x8", "v6e:16x16")

GIB = 2**30


class Chip(NamedTuple):
    """Peak figures of a chip.

    Sources: the "System architecture" tables at docs.cloud.google.com/tpu/docs (v4, v5e, v5p, v6e).
    They give the interconnect for a whole chip, in one direction (v5e 1600 Gbit/s, v5p 4800 Gbit/s,
    v6e 3200 Gbit/s; v4 from its all-reduce rate per pod, 1.1 PB/s over 4096 chips), which we divide
    by the axes of the torus: a collective over one axis of the mesh runs along one axis of it.
    """

    flops: float
    """bf16 FLOP/s of matrix products."""
    memory: float
    """Bytes of HBM that a program may use: what libtpu says where a program does not fit, a little
    less than the table's figure."""
    bandwidth: float
    """Bytes of HBM per second."""
    links: float
    """Bytes per second that a chip sends along one axis of the torus, to both neighbours."""


CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, 1228e9, 90e9),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 100e9),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 200e9),
    "v6e": Chip(918e12, 31.25 * GIB, 1640e9, 200e9),
}


def chip(topology: str) -> Chip:
    """Peak figures of the chips of a topology; pass a `Chip` of your own where they differ.

    Raises:
      UserError: no figures for this generation.
    """
    generation = topology.split(":")[0]
    if generation not in CHIPS:
        raise UserError(
            f"topology {topology!r}: no peak figures for {generation!r}; there are some for "
            f"{', '.join(CHIPS)}.{nearest(generation, CHIPS)}"
        )
    return CHIPS[generation]


def prepare() -> None:
    """Tell libtpu that there is no TPU here, and JAX to run on the CPU; call before any array.

    Raises:
      UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for TPUs needs libtpu, which is not installed: pip install -e '.[plan]' "
            "(Linux only; no TPU is needed)."
        )
    # Without these libtpu asks the cloud's metadata server, prints errors, and lets only one
    # process of the machine load it.
    quiet = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "JAX_PLATFORMS": "cpu",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if not jax.config.jax_platforms:  # type: ignore[attr-defined]
        jax.config.update("jax_platforms", "cpu")


def mesh_for(topology: str, mesh: str) -> Mesh:
    """The mesh `--mesh` over the devices of a named topology, as v5e:8x8; for compiling only.

    Devices stand as in training, by `mesh.device_grid`.

    Raises:
      UserError: libtpu is missing, it does not know the topology, or the sizes do not fit.
    """
    prepare()
    try:
        # By itself libtpu gives v4's two cores as two devices; on the machines a chip is one.
        options: dict[str, Any] = {}
        if topology.startswith("v4:"):
            options["chip_config_name"] = "megacore"
        if set(topology.partition(":")[2].split("x")) == {"1"}:  # else a host has four chips
            options["chips_per_host_bounds"] = [1, 1, 1]
        described = topologies.get_topology_desc(topology, "tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise UserError(
            f"topology {topology!r}: libtpu refuses it ({reason}). Spellings that it knows: "
            f"{', '.join(KNOWN)}.{nearest(topology, KNOWN)}"
        ) from None
    devices = described.devices
    sizes = parse_mesh(mesh, len(devices))
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"--mesh {mesh} needs {math.prod(sizes)} devices, but {topology} has {len(devices)}."
        )
    return Mesh(device_grid(sizes, devices), AXES, axis_types=(AxisType.Auto,) * 3)
