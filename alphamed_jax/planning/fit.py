"""Whether the programs of a step fit into a chip's memory, and what takes it up."""

from collections.abc import Mapping
from typing import NamedTuple

from alphamed_jax.compiled.topology import Chip
from alphamed_jax.planning.cost import Cost
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Program, checkpoint_parts, memory_parts, total_bytes

# Memory falls into pieces, and the runtime keeps some: what a plan leaves free.
RESERVE = 0.02
CHECKPOINT = "checkpoint"
"""Not a program: the border of steps at which a checkpoint is copied."""
EVALUATION = "evaluation"
"""Decoding as evaluation does it, where rollouts decode in 8 bits."""


class PhaseMemory(NamedTuple):
    """Memory of one device during a program, in bytes."""

    parts: Mapping[str, int]
    """Arrays that stay, by kind: see `programs.record.KINDS`."""
    temporaries: int
    """Results, activations and all else that the program makes."""
    total: int
    refused: str
    """What the compiler says where it finds no room for the program alone."""
    fits: bool


def limit(chip: Chip) -> int:
    """Bytes that a program and what lies beside it may take."""
    return int((1 - RESERVE) * chip.memory)


def memory_of(step: PlannedStep, costs: dict[Program, Cost], chip: Chip) -> dict[str, PhaseMemory]:
    """Memory of each program that was measured, of the copy for a checkpoint, and of decoding in
    evaluation where it is another."""

    def phase(parts: Mapping[str, int], total: int, refused: str = "") -> PhaseMemory:
        fits = not refused and total <= limit(chip)
        return PhaseMemory(parts, total - sum(parts.values()), total, refused, fits)

    found = {
        program.name: phase(
            memory_parts(program, step), total_bytes(program, step, cost.peak), cost.refused
        )
        for program, cost in costs.items()
    }
    copied = checkpoint_parts(step)
    found |= {CHECKPOINT: phase(copied, sum(copied.values()))}
    decode = next((program for program in costs if program.name == "decode"), None)
    if step.shape.evaluates and decode:
        # What decoding makes beside its arguments is about the same.
        arrays = memory_parts(decode, step.evaluation)
        total = sum(arrays.values()) + found[decode.name].temporaries
        found |= {EVALUATION: phase(arrays, total)}
    return found


def failing(phases: dict[str, PhaseMemory]) -> tuple[str, ...]:
    """Phases that do not fit."""
    return tuple(name for name, there in phases.items() if not there.fits)
