"""What a phase of a step costs on one device, compiled or estimated."""

import re
from typing import NamedTuple

from alphamed_jax.compiled.programs import Phase
from alphamed_jax.planning.roofline import Amount

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class PhaseCost(NamedTuple):
    """Work and memory of one program."""

    base: Amount
    """Work outside of loops of unknown length."""
    turn: Amount
    """Work of one turn of such a loop: a decode step, a micro-batch."""
    collectives: dict[str, float]
    """Bytes that collectives give, by kind, outside of such loops; "sent" where estimated."""
    turn_collectives: dict[str, float]
    """The same of one turn."""
    peak: int
    """Most bytes in use at once by the program, its arguments included."""
    refused: str = ""
    """What the compiler says where it finds no room; then the rest is estimated."""
    seconds: float = 0.0
    """Time that compiling took."""
    estimated: bool = False
    """From shapes, not compiled."""


def compiled_cost(phase: Phase) -> PhaseCost:
    """From a compiled program."""
    turn = Amount(phase.turn_flops, phase.turn_traffic, phase.turn_sent)
    whole = Amount(phase.flops, phase.traffic, phase.sent)
    moved = {kind: sum(sizes.values()) for kind, sizes in phase.collectives.items()}
    more = phase.turn_collectives
    return PhaseCost(
        base=whole.plus(turn, -1),
        turn=turn,
        collectives={kind: size - more.get(kind, 0) for kind, size in moved.items()},
        turn_collectives=dict(more),
        peak=phase.peak,
        seconds=phase.lower_seconds + phase.compile_seconds,
    )


def refused_cost(message: str, estimate: PhaseCost) -> PhaseCost:
    """A program that the compiler refuses: the memory that it names, the rest as estimated."""
    found = re.search(r"Used ([\d.]+)([KMGT])|\(([\d.]+)([KMGT])\)", message)
    peak = estimate.peak
    if found:
        number, unit = found[1] or found[3], found[2] or found[4]
        peak = max(peak, int(float(number) * _UNITS[unit]))
    return estimate._replace(peak=peak, refused=message, estimated=True)
