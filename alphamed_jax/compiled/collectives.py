"""What optimised HLO sends between devices: bytes that collectives give, and bytes on the links."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from alphamed_jax.compiled.costs import computation_traffic
from alphamed_jax.compiled.hlo import (
    COLLECTIVES,
    Instruction,
    Program,
    branches,
    called,
    parse,
)
from alphamed_jax.compiled.loops import trip_count

_CALLS = {"fusion", "call", "async-start", "map"}


class Collective(NamedTuple):
    """One collective of a program."""

    kind: str
    given: dict[str, int]
    """Bytes of its results on a device, by element type."""
    group: int
    """Devices that take part together; 1 for a permutation, in which each sends to one."""
    times: int
    """How often it runs: the turns of the loops around it."""
    overlapped: bool = False
    """Whether it is started by itself, and other work is done until its end is awaited."""

    @property
    def sent(self) -> float:
        """Bytes that a device sends each time, in a ring, which no algorithm undercuts.

        Of n devices each sends all but its share of what is gathered, that twice for a sum, and
        n - 1 results of a scattered sum. (Chan et al. 2007, section 4.)
        """
        n, size = self.group, float(sum(self.given.values()))
        if self.kind == "collective-permute":
            return size
        if self.kind == "reduce-scatter":
            return size * (n - 1)
        return (2 if self.kind == "all-reduce" else 1) * size * (n - 1) / n


def group_size(instruction: Instruction) -> int:
    """Devices in one of a collective's groups, in any of the three spellings of XLA.

    Listed, `{{0,1},{2,3}}`; counted, `[groups,size]<=[..]`; or by the axes of a mesh,
    `mesh['a'=2,'b'=4] {'b'}`, where `'b':(1)2` is a part of an axis.
    """
    text = instruction.attributes
    if counted := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(counted[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return len(listed[1].split(","))
    if by_axes := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", by_axes[1]))
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", by_axes[2])
        return math.prod(int(part or sizes[name]) for name, part in parts)
    if "source_target_pairs" in text:
        return 1
    raise ValueError(f"groups of {instruction.name} in a spelling that is not known: {text[:200]}")


def collectives(program: Program, unknown_trips: int = 1) -> Iterator[Collective]:
    """All collectives that run, of branches those of the one that moves most bytes.

    Args:
      unknown_trips: turns of loops whose number is only known at run time.
    """
    channels = set()  # a collective spread over several fusions has one channel

    def visit(name: str, times: int, started: bool = False) -> Iterator[Collective]:
        # TPUs scatter a sum by a fusion of the sum and the slice that each device keeps.
        scattered = "all-reduce-scatter" in name
        for i in program.computations[name].values():
            kind = i.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                channel = re.search(r"channel_id=(\d+)", i.attributes)
                if channel and channel[1] in channels:
                    continue
                channels.add(channel[1] if channel else None)
                shapes = i.shapes
                if i.opcode.endswith("-start"):
                    shapes = shapes[len(i.operands) :] or shapes
                group = group_size(i)
                share = 1
                if scattered and kind == "all-reduce":
                    kind, share = "reduce-scatter", group
                given: dict[str, int] = {}
                for shape in shapes:
                    given[shape.kind] = given.get(shape.kind, 0) + shape.size // share
                yield Collective(kind, given, group, times, started or i.opcode.endswith("-start"))
            elif i.opcode == "while":
                trips = trip_count(program, i)
                turns = unknown_trips if trips is None else trips
                yield from visit(called(i, "body") or "", times * turns)
            elif i.opcode == "conditional":
                costs = [(computation_traffic(program, b).total, b) for b in branches(i)]
                yield from visit(max(costs)[1], times)
            elif i.opcode in _CALLS:
                target = called(i, "calls") or called(i, "to_apply")
                if target:
                    inner = program.computations[target].values()
                    begins = any(x.root and "AsyncCollectiveStart" in x.attributes for x in inner)
                    yield from visit(target, times, started or begins)

    return visit(program.entry, 1)


def collective_bytes(text: str, unknown_trips: int = 1) -> dict[str, dict[str, int]]:
    """Bytes that each kind of collective gives on one device: opcode -> element type -> bytes."""
    found: dict[str, dict[str, int]] = {}
    for one in collectives(parse(text), unknown_trips):
        row = found.setdefault(one.kind, {})
        for dtype, size in one.given.items():
            row[dtype] = row.get(dtype, 0) + one.times * size
    return found


def sent_bytes(text: str, unknown_trips: int = 1, overlapped: bool = False) -> int:
    """Bytes that one device sends over its links (`Collective.sent`).

    Args:
      overlapped: only what it sends while it does other work.
    """
    found = collectives(parse(text), unknown_trips)
    some = (one for one in found if one.overlapped or not overlapped)
    return math.ceil(sum(one.times * one.sent for one in some))
