"""What a program of a step costs on one device, compiled or estimated."""

import re
from typing import Any, NamedTuple

from alphamed_jax.compiled.work import Work
from alphamed_jax.programs.measure import Compiled
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Program, given_parts

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Cost(NamedTuple):
    """Work and memory of one program."""

    base: Work
    """Outside of open loops, whose number of iterations is only known at run time."""
    per_iteration: Work
    """One iteration of such a loop: a decode step, a micro-batch."""
    collectives: dict[str, float]
    """Bytes that collectives give, by kind, outside of open loops; "sent" where estimated."""
    iteration_collectives: dict[str, float]
    """The same of one iteration."""
    peak: int
    """Most bytes in use at once by the program, its arguments included."""
    refused: str = ""
    """What the compiler says where it finds no room; then the rest is estimated."""
    overlapped: int = 0
    """Bytes sent while other work is done, as compiled; open loops with one iteration."""
    seconds: float = 0.0
    """Time that compiling took."""
    estimated: bool = False
    """From shapes, not compiled."""

    @property
    def work(self) -> Work:
        """All of it, open loops with one iteration."""
        return self.base.plus(self.per_iteration)

    @property
    def moved(self) -> dict[str, Any]:
        """Bytes that collectives give, open loops with one iteration."""
        return self.moved_by(1)

    def moved_by(self, iterations: float | int) -> dict[str, Any]:
        """Bytes that collectives give with so many iterations, by kind."""
        return {
            kind: self.collectives.get(kind, 0)
            + iterations * self.iteration_collectives.get(kind, 0)
            for kind in self.collectives | self.iteration_collectives
        }


def compiled_cost(compiled: Compiled) -> Cost:
    """From a compiled program."""
    report = compiled.report
    more = report.iteration_collectives
    moved = {kind: sum(sizes.values()) for kind, sizes in report.collectives.items()}
    return Cost(
        base=report.base,
        per_iteration=report.per_iteration,
        collectives={kind: size - more.get(kind, 0) for kind, size in moved.items()},
        iteration_collectives=dict(more),
        peak=compiled.peak,
        overlapped=report.overlapped,
        seconds=compiled.lower_seconds + compiled.compile_seconds,
    )


def estimated_cost(program: Program, step: PlannedStep) -> Cost:
    """From shapes, by the record's formula."""
    found = program.estimate(step)
    given, moved = (
        {"sent": work.comm_bytes} if work.comm_bytes else {}
        for work in (found.base, found.per_iteration)
    )
    peak = sum(given_parts(program, step).values()) + found.temporaries
    return Cost(found.base, found.per_iteration, given, moved, peak, estimated=True)


def refused_cost(message: str, estimate: Cost) -> Cost:
    """A program that the compiler refuses: the memory that it names, the rest as estimated."""
    found = re.search(r"Used ([\d.]+)([KMGT])|\(([\d.]+)([KMGT])\)", message)
    peak = estimate.peak
    if found:
        number, unit = found[1] or found[3], found[2] or found[4]
        peak = max(peak, int(float(number) * _UNITS[unit]))
    return estimate._replace(peak=peak, refused=message, estimated=True)
