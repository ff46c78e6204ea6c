"""The text of a compiled program in, numbers out: the one door to the reading of HLO.

What XLA prints changes from version to version. The files behind this one (`hlo`, `loops`,
`costs`, `collectives`, `kernels`) know how it looks; nothing in front of it does.
"""

import math
from typing import NamedTuple

from alphamed_jax.compiled import collectives, costs, hlo
from alphamed_jax.compiled.work import Work


class ProgramReport(NamedTuple):
    """What a program costs on one device, as counted in its optimised HLO.

    Loops whose number of iterations is only known at run time are open: the decode loop and that
    over micro-batches. Other loops count as often as they run.
    """

    base: Work
    """Outside of open loops."""
    per_iteration: Work
    """One iteration of the open loops."""
    collectives: dict[str, dict[str, int]]
    """Bytes that collectives give with one iteration: kind -> element type -> bytes."""
    iteration_collectives: dict[str, int]
    """Those of each further iteration: kind -> bytes."""
    overlapped: int
    """Bytes that a device sends while it does other work, with one iteration."""
    loop_traffic: int | None
    """Bytes of memory that one iteration of the largest loop moves; None: there is no loop."""
    loop_writes: dict[str, int]
    """Bytes that each instruction of that loop writes, by its name and opcode."""
    arrays: frozenset[tuple[int, ...]]
    """Dimensions of all arrays outside of fusions, which are those that lie in memory."""

    @property
    def work(self) -> Work:
        """All of it, open loops with one iteration."""
        return self.base.plus(self.per_iteration)

    def most_rows(self, dimension: int, but: int) -> int:
        """Most rows of an array with a `dimension` of this length.

        With a vocabulary: rows of logits. Arrays that also have a dimension of `but` are weights.
        """
        found = (d for d in self.arrays if dimension in d and but not in d)
        return max((math.prod(dims) // dimension for dims in found), default=0)


def read(text: str) -> ProgramReport:
    """Read the optimised HLO of a program (`compiled.as_text()`)."""
    program = hlo.parse(text)
    once, twice = (
        Work(
            costs.matmul_flops(text, iterations),
            costs.computation_traffic(program, program.entry, iterations).total,
            collectives.sent_bytes(text, iterations),
        )
        for iterations in (1, 2)
    )
    moved, more = (collectives.collective_bytes(text, iterations) for iterations in (1, 2))
    per_iteration = twice.plus(once, -1)
    body = costs.step_body(program)
    return ProgramReport(
        base=once.plus(per_iteration, -1),
        per_iteration=per_iteration,
        collectives=moved,
        iteration_collectives={
            kind: sum(more[kind].values()) - sum(sizes.values()) for kind, sizes in moved.items()
        },
        overlapped=collectives.sent_bytes(text, overlapped=True),
        loop_traffic=None if body is None else costs.computation_traffic(program, body).total,
        loop_writes={} if body is None else costs.writes(program, body),
        arrays=hlo.array_shapes(program),
    )
