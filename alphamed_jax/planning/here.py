"""What training would need of the GPUs that are here, against what they report."""

from collections.abc import Sequence
from typing import Any

from alphamed_jax.compiled.topology import GIB, Chip
from alphamed_jax.config import Config
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import AnyMesh
from alphamed_jax.planning.cost import estimated_cost
from alphamed_jax.planning.devices import Devices
from alphamed_jax.planning.fit import failing, memory_of
from alphamed_jax.planning.measure import measure_all
from alphamed_jax.planning.pool import SHARE
from alphamed_jax.planning.step import planned_step
from alphamed_jax.programs import planned_programs

_ANY = Chip(1.0, 0.0, 1.0, 1.0)
"""A chip of which only the memory is asked."""


def smallest_pool(devices: Sequence[Any]) -> int | None:
    """Least bytes that programs may use on one of these GPUs; None where none says it."""
    limits = [
        (device.memory_stats() or {}).get("bytes_limit")
        for device in devices
        if device.platform == "gpu"
    ]
    known = [limit for limit in limits if limit]
    return min(known) if known else None


def memory_line(
    config: Config, model: ModelConfig, mesh: AnyMesh, devices: Sequence[Any]
) -> tuple[str, bool] | None:
    """Estimated need of the phase that needs most, and what JAX may use of the smallest GPU.

    Args:
      devices: those of this process.

    Returns:
      One line, and whether it fits; None where no GPU says how much there is.
    """
    limit = smallest_pool(devices)
    if limit is None:
        return None
    there = Devices("here", mesh, _ANY._replace(memory=float(limit)), "gpu")
    step = planned_step(config, model, there)
    phases = memory_of(step, measure_all(planned_programs(step), step, estimated_cost), there.chip)
    name, most = max(phases.items(), key=lambda phase: phase[1].total)
    line = f"{name} needs about {most.total / GIB:.1f} of {limit / GIB:.1f} GiB that JAX may use"
    if not failing(phases):
        return f"memory of a GPU: {line} (estimated from shapes)", True
    return (
        f"{line} of a GPU, estimated from shapes: it may end for want of memory. {SHARE}=0.9 "
        "gives JAX more of the card, and `python -m alphamed_jax.plan` seeks settings that fit.",
        False,
    )
