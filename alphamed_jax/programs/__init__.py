"""Every jitted program of a training step, described once: `PROGRAMS`."""

from collections.abc import Sequence

from alphamed_jax.programs import rollout, update
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Program

PROGRAMS: tuple[Program, ...] = (*rollout.PROGRAMS, *update.PROGRAMS)


def planned_programs(
    step: PlannedStep, programs: Sequence[Program] = PROGRAMS
) -> tuple[Program, ...]:
    """The programs that a plan shows of a step, in the order in which they run."""
    return tuple(program for program in programs if program.planned and program.used(step))
