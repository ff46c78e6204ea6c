"""Whether the phases of a step fit into a chip's memory, and what takes it up."""

from typing import NamedTuple

from alphamed_jax.compiled import memory
from alphamed_jax.compiled.arguments import Case
from alphamed_jax.compiled.topology import Chip
from alphamed_jax.planning.phase import PhaseCost

# Memory falls into pieces, and the runtime keeps some: what a plan leaves free.
RESERVE = 0.02


class Held(NamedTuple):
    """Memory of one device during a phase, in bytes."""

    parts: dict[str, int]
    """Arrays that stay: see `memory.GROUPS`."""
    temporaries: int
    """Results, activations and all else that the program makes."""
    total: int
    refused: str
    """What the compiler says where it finds no room for the program alone."""
    fits: bool


def limit(chip: Chip) -> int:
    """Bytes that a phase may take."""
    return int((1 - RESERVE) * chip.memory)


def held(case: Case, costs: dict[str, PhaseCost], chip: Chip, rounds: int = 1) -> dict[str, Held]:
    """Memory of each phase that was measured, and of the border at which a checkpoint is copied.

    Args:
      rounds: as rollout.max_rounds.
    """
    known, beside = memory.sizes(case, rounds), memory.beside(case, rounds)
    found = {}
    for name in (*costs, "checkpoint"):
        parts = memory.parts(known, name)
        cost = costs.get(name)
        total = beside[name] + (cost.peak if cost else 0)
        refused = cost.refused if cost else ""
        fits = not refused and total <= limit(chip)
        found[name] = Held(parts, max(total - sum(parts.values()), 0), total, refused, fits)
    return found


def failing(phases: dict[str, Held]) -> tuple[str, ...]:
    """Phases that do not fit."""
    return tuple(name for name, there in phases.items() if not there.fits)
