"""What optimised HLO costs on one device: HBM traffic and matrix products.

XLA's own `cost_analysis` counts every loop as one turn and reads of VMEM like those of HBM, which
after prefetching counts weights and caches two or three times; here loops count as often as they
turn, and only HBM counts. Pallas kernels, into which XLA does not look, are in `kernels`.
"""

import functools
import math
import re
from typing import NamedTuple

from alphamed_jax.compiled import kernels
from alphamed_jax.compiled.hlo import (
    COLLECTIVES,
    Instruction,
    Program,
    Shape,
    aliases,
    branches,
    called,
    is_input,
    parse,
    users,
)
from alphamed_jax.compiled.loops import trip_count

# These give a name to bytes that are there already.
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "iota"}
_FREE |= {"copy-done", "slice-done", "async-done", "async-update", "partition-id", "replica-id"}
_FREE |= {"all-gather-done", "all-reduce-done", "collective-permute-done", "opt-barrier"}
_FREE_CALLS = ("ConcatBitcast", "AllocateBuffer")
# A part of their first operand is read: as much as they give.
_PARTIAL = {"dynamic-slice", "gather", "slice", "slice-start"}
_CALLS = {"fusion", "call", "async-start", "map"}


class Traffic(NamedTuple):
    """Bytes of HBM read and written."""

    read: int = 0
    written: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.read + self.written

    def plus(self, other: "Traffic", times: int = 1) -> "Traffic":
        """The sum with `times` the other."""
        return Traffic(self.read + times * other.read, self.written + times * other.written)


def _hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.size for shape in shapes if shape.space == 0)


def _read_of(program: Program, fusion: Instruction, position: int) -> int | None:
    """Bytes of an operand that a fusion reads where it only takes slices of it; None: all."""
    inner = program.computations[called(fusion, "calls") or ""]
    found = [i for i in inner.values() if is_input(i) and int(i.text) == position]
    read = 0
    for user, name in users(inner, found[0].name) if found else []:
        places = [i for i, operand in enumerate(user.operands) if operand == name]
        if user.opcode in _PARTIAL and places == [0]:
            read += sum(shape.size for shape in user.shapes)
        elif user.opcode == "fusion":
            for place in places:
                part = _read_of(program, user, place)
                if part is None:
                    return None
                read += part
        else:
            return None
    return read


def _written_in_place(program: Program, fusion: Instruction, position: int) -> Traffic | None:
    """What it moves, where all that a fusion does with an operand is to update it in place.

    It may also read slices, as a scatter does to keep what it must not overwrite.
    """
    inner = program.computations[called(fusion, "calls") or ""]
    found = [i for i in inner.values() if is_input(i) and int(i.text) == position]
    updates, read = [], 0
    for user, name in users(inner, found[0].name) if found else []:
        if user.operands.index(name) != 0:
            return None
        if user.opcode in _PARTIAL:
            read += sum(shape.size for shape in user.shapes)
        else:
            updates.append(user)
    if len(updates) != 1:
        return None
    (user,) = updates
    if user.opcode == "fusion":
        return _written_in_place(program, user, 0)
    if user.opcode not in ("dynamic-update-slice", "scatter"):
        return None
    update = inner[user.operands[2 if user.opcode == "scatter" else 1]].shapes[0]
    return Traffic(read, update.size)


def _in_flight(program: Program, fusion: Instruction) -> tuple[set[int], set[int]]:
    """Operands that a fusion only hands on, and results that are the same memory, by number.

    A TPU sends while it computes: one fusion starts a collective, others do other work and each
    hold the same collective and its buffers, and one ends it. What the collective reads and writes
    counts at its start.
    """
    same = aliases(fusion)
    inner = program.computations[called(fusion, "calls") or ""]
    root = next(i for i in inner.values() if i.root)
    if "AsyncCollectiveStart" in root.attributes:
        return set(), set(same)
    if not same or not ("AsyncCollectiveDone" in root.attributes or root.opcode == "tuple"):
        return set(), set()
    handed_on = {
        int(i.text)
        for i in inner.values()
        if is_input(i)
        and i.name in root.operands
        and all(u.root or u.opcode in COLLECTIVES for u in inner.values() if i.name in u.operands)
    }
    return handed_on, {output for output, operand in same.items() if operand in handed_on}


def _fused_traffic(program: Program, instruction: Instruction, operands: list) -> Traffic:
    """What a fusion reads and writes: slices of operands, updates in place, else all."""
    read, updates = 0, {}
    in_flight, unwritten = _in_flight(program, instruction)
    for position, shapes in enumerate(operands):
        if position in in_flight:
            continue
        size = _hbm(shapes)
        update = _written_in_place(program, instruction, position) if size else None
        if update is not None:
            updates[math.prod(shapes[0].dims)] = update.written
            read += update.read
        elif size:
            part = _read_of(program, instruction, position)
            read += size if part is None else min(part, size)
    written = 0
    for number, shape in enumerate(instruction.shapes):
        if shape.space == 0 and number not in unwritten:
            written += updates.pop(math.prod(shape.dims), shape.size)
    return Traffic(read, written)


def traffic(
    program: Program, computation: str, instruction: Instruction, unknown_trips: int = 1
) -> Traffic:
    """Bytes of HBM that an instruction moves; a loop as often as it turns."""
    known = program.computations[computation]
    opcode = instruction.opcode
    if opcode in _FREE or any(name in instruction.attributes for name in _FREE_CALLS):
        return Traffic()
    if opcode == "while":
        trips = trip_count(program, instruction)
        inside = computation_traffic(program, called(instruction, "body") or "", unknown_trips)
        return Traffic().plus(inside, unknown_trips if trips is None else trips)
    if opcode == "conditional":
        inside = [computation_traffic(program, b, unknown_trips) for b in branches(instruction)]
        return max(inside, key=lambda t: t.total)
    operands = [known[name].shapes for name in instruction.operands if name in known]
    if opcode in ("call", "async-start"):
        target = called(instruction, "to_apply" if opcode == "call" else "calls")
        return computation_traffic(program, target or "", unknown_trips)
    if opcode == "fusion":
        return _fused_traffic(program, instruction, operands)
    if opcode in ("copy-start", "slice-start"):
        # The type is a tuple with source, destination and a flag, in either order.
        target = instruction.shapes[1 if opcode == "slice-start" else 0]
        read = target.size if operands[0][0].space == 0 else 0
        return Traffic(read, target.size if target.space == 0 else 0)
    if opcode in ("dynamic-update-slice", "scatter"):
        update = _hbm(operands[2 if opcode == "scatter" else 1])
        return Traffic(update, update if instruction.shapes[0].space == 0 else 0)
    if opcode in _PARTIAL:
        size = sum(shape.size for shape in instruction.shapes)
        return Traffic(size if _hbm(operands[0]) else 0, _hbm(instruction.shapes))
    attention = kernels.attention_call(instruction, operands)
    if attention is not None:
        return Traffic(*kernels.attention_bytes(attention, instruction, operands))
    if opcode.endswith("-start"):  # operands again, then results
        results = instruction.shapes[len(operands) :] or instruction.shapes
        return Traffic(sum(map(_hbm, operands)), _hbm(results))
    return Traffic(sum(map(_hbm, operands)), _hbm(instruction.shapes))


def computation_traffic(program: Program, name: str, unknown_trips: int = 1) -> Traffic:
    """Bytes of HBM that a computation moves."""
    total = Traffic()
    for instruction in program.computations[name].values():
        total = total.plus(traffic(program, name, instruction, unknown_trips))
    return total


def step_body(program: Program) -> str | None:
    """Name of the body of the `while` loop that moves most bytes; of a rollout the decode step."""
    loops = (i for c in program.computations.values() for i in c.values() if i.opcode == "while")
    bodies = {called(loop, "body") or "" for loop in loops}
    return max(bodies, key=lambda name: computation_traffic(program, name).total, default=None)


def writes(program: Program, computation: str) -> dict[str, int]:
    """Bytes of HBM that each instruction of a computation writes, by its name and opcode.

    In the decode step one that writes as much as a layer's cache is a copy of a cache.
    """
    written = (
        (f"{i.name} ({i.opcode})", traffic(program, computation, i).written)
        for i in program.computations[computation].values()
    )
    return {name: size for name, size in written if size}


def _product(instruction: Instruction, known: dict[str, Instruction]) -> int:
    """FLOPs of a dot or convolution: two for each multiplication whose result counts."""
    (out,) = instruction.shapes[:1]
    left, right = (known[name].shapes[0] for name in instruction.operands[:2])
    if instruction.opcode == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        summed = math.prod(left.dims[int(d)] for d in (found[1] if found else "").split(",") if d)
        return 2 * math.prod(out.dims) * summed
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels, instruction
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    spatial = dict(part.split("=") for part in (window[1] if window else "").split())
    flops = 2 * math.prod(
        size for size, label in zip(out.dims, labels[3], strict=True) if not label.isdigit()
    )
    flops *= right.dims[labels[2].index("i")]
    for d in sorted(label for label in labels[3] if label.isdigit()):
        flops *= _positions(
            left.dims[labels[1].index(d)],
            right.dims[labels[2].index(d)],
            out.dims[labels[3].index(d)],
            {name: _part(value, int(d)) for name, value in spatial.items()},
        )
    return flops


def _part(value: str, position: int) -> str:
    return value.split("x")[position]


def _positions(length: int, window: int, outputs: int, options: dict[str, str]) -> int:
    """Pairs of window place and output at which a convolution meets an element of its input.

    TPU programs write batched products as convolutions in which most places meet padding or
    the holes of a dilated input; XLA's own cost analysis counts them in this way.
    """
    low = int(options.get("pad", "0_0").split("_")[0])
    stride, holes = int(options.get("stride", 1)), int(options.get("lhs_dilate", 1))
    spread = int(options.get("rhs_dilate", 1))
    found = 0
    for place in range(window):
        for output in range(outputs):
            at = output * stride + place * spread - low
            found += 0 <= at <= (length - 1) * holes and at % holes == 0
    return found


def matmul_flops(text: str, unknown_trips: int = 1) -> int:
    """FLOPs of all matrix products of a program on one device, attention kernels included.

    Args:
      unknown_trips: turns of loops whose number is only known at run time.
    """
    program = parse(text)

    @functools.cache
    def flops(name: str) -> int:
        known, total = program.computations[name], 0
        for i in known.values():
            if i.opcode in ("dot", "convolution"):
                total += _product(i, known)
            elif i.opcode == "custom-call":
                shapes = [known[operand].shapes for operand in i.operands]
                attention = kernels.attention_call(i, shapes)
                total += kernels.attention_flops(attention) if attention else 0
            elif i.opcode == "while":
                trips = trip_count(program, i)
                turn = flops(called(i, "body") or "")
                total += turn * (unknown_trips if trips is None else trips)
            elif i.opcode == "conditional":
                total += max(map(flops, branches(i)))
            elif i.opcode in _CALLS:
                total += flops(called(i, "calls") or called(i, "to_apply") or "")
        return total

    return flops(program.entry)
