"""The devices that are planned for: mesh and peak figures; TPUs from libtpu, others by name."""

import math
from typing import NamedTuple

from jax.sharding import AbstractMesh, AxisType, Mesh

from alphamed_jax.compiled import topology
from alphamed_jax.compiled.topology import GIB, Chip
from alphamed_jax.errors import UserError, nearest
from alphamed_jax.model.mesh import AXES, AnyMesh, mesh_name, parse_mesh
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.pool import pool_line, pool_share

# Data sheets of the SXM modules: dense bf16, memory (as nvidia-smi gives it: 81559, 143771 and
# 81920 MiB; the A100 with 80 GB), and NVLink in one direction, which holds within a node. A CPU
# device is one of those that --mesh simulates; round numbers of ours.
OTHERS = {
    "h100": Chip(989e12, 81559.0 * 2**20, 3350e9, 450e9),
    "h200": Chip(989e12, 143771.0 * 2**20, 4800e9, 450e9),
    "a100": Chip(312e12, 81920.0 * 2**20, 2039e9, 300e9),
    "cpu": Chip(50e9, 8 * GIB, 10e9, 5e9),
}
GPUS = ("h100", "h200", "a100")


class Devices(NamedTuple):
    """What is planned for."""

    topology: str
    mesh: AnyMesh
    chip: Chip
    platform: str
    """tpu, gpu or cpu."""
    pool: str = ""
    """What JAX takes of a GPU, in words; empty where memory is that of libtpu or of a flag."""

    @property
    def compiled(self) -> bool:
        """Whether the programs are compiled for them; else all figures are estimates."""
        return isinstance(self.mesh, Mesh)

    @property
    def name(self) -> str:
        """The mesh as `--mesh` takes it."""
        return mesh_name(self.mesh)


def _flag(flags: PlanFlags) -> str:
    """The one that names the devices."""
    return "--suggest" if flags.suggest else "--topology"


def chip_of(name: str, flags: PlanFlags) -> Chip:
    """Peak figures of a topology's chips, with what the flags override.

    Memory is what programs may use, of a GPU JAX's pool (`pool_share`).

    Raises:
      UserError: a generation without figures, or see `pool_share`.
    """
    generation = name.split(":")[0]
    known = topology.CHIPS | OTHERS
    if generation not in known:
        raise UserError(
            f"{_flag(flags)} {name}: unknown devices {generation!r}; expected one of "
            f"{', '.join(known)}, as v5e:8x8 or h100:8.{nearest(generation, known)}"
        )
    given = {
        "flops": flags.peak_flops,
        "memory": flags.hbm_gb and flags.hbm_gb * GIB,
        "bandwidth": flags.hbm_gbps and flags.hbm_gbps * 1e9,
        "links": flags.ici_gbps and flags.ici_gbps * 1e9,
    }
    chip = known[generation]._replace(**{k: v for k, v in given.items() if v is not None})
    if generation in GPUS and flags.hbm_gb is None:
        chip = chip._replace(memory=chip.memory * pool_share())
    return chip


def devices_for(name: str, mesh: str, flags: PlanFlags) -> Devices:
    """Mesh and chip of a topology.

    Raises:
      UserError: unknown devices, a mesh of another size, or libtpu is missing.
    """
    chip = chip_of(name, flags)
    generation, _, shape = name.partition(":")
    tpu = generation in topology.CHIPS
    if tpu and not flags.estimate:
        return Devices(name, topology.mesh_for(name, mesh), chip, "tpu")
    parts = shape.split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        example = "2x4" if tpu else "8"
        raise UserError(
            f"{_flag(flags)} {name}: expected a number of devices, as {generation}:{example}."
        )
    count = math.prod(map(int, parts))
    sizes = parse_mesh(mesh, count)
    if math.prod(sizes) != count:
        raise UserError(f"--mesh {mesh} needs {math.prod(sizes)} devices, but {name} has {count}.")
    abstract = AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)
    if generation not in GPUS:
        return Devices(name, abstract, chip, "tpu" if tpu else "cpu")
    pool = pool_line(pool_share(), OTHERS[generation].memory) if flags.hbm_gb is None else ""
    return Devices(name, abstract, chip, "gpu", pool)
