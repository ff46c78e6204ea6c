"""Reading optimised HLO: instructions, the memory they touch, the matrix products they do.

Written for the text of `compiled.as_text()` on CPUs and TPUs. On TPUs a shape carries its layout,
as `bf16[8,64,128]{2,1,0:T(8,128)(2,1)S(1)}`: minor-to-major order, tiles that pad the minor
dimensions, and the memory space. Space 0, left out, is HBM; others (1 is VMEM) are on the chip's
core and cost no HBM traffic.
"""

import functools
import math
import re
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4}
_WIDTHS |= {"bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "token": 0}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)$")


class Shape(NamedTuple):
    """An array's type, logical dimensions, bytes with padding, and memory space (0: HBM)."""

    kind: str
    dims: tuple[int, ...]
    size: int
    space: int


class Instruction(NamedTuple):
    """One line of a computation."""

    root: bool
    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    text: str
    """What stands between the parentheses."""


def _shape(kind: str, dims: str, layout: str | None) -> Shape:
    sizes = tuple(int(n) for n in dims.split(",") if n)
    order, _, notes = (layout or "").partition(":")
    space = re.search(r"S\((\d+)\)", notes)
    padded = [sizes[int(d)] for d in order.split(",") if d] or list(reversed(sizes))
    tile = re.search(r"T\(([\d,*]+)\)", notes)
    if tile and sizes:  # minor dimensions are padded to whole tiles
        for i, length in enumerate(reversed(tile[1].split(","))):
            if length != "*" and i < len(padded):
                padded[i] = -(-padded[i] // int(length)) * int(length)
    size = _WIDTHS.get(kind, 8) * math.prod(padded)
    return Shape(kind, sizes, size, int(space[1]) if space else 0)


def shapes_of(text: str) -> tuple[Shape, ...]:
    """All shapes that a type names, the parts of a tuple in order."""
    return tuple(_shape(*found) for found in _SHAPE.findall(text))


def _closing(text: str) -> int:
    """Where the parenthesis that is open at the start closes."""
    depth = 1
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return i
    return len(text)


class Program(NamedTuple):
    """Computations by name, and which one is the entry."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


@functools.lru_cache(maxsize=4)
def parse(text: str) -> Program:
    """Read a module's text."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.endswith("{") and "->" in line:
            name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            entry = name if line.startswith("ENTRY") else entry
            current = computations.setdefault(name, {})
        elif current is not None and (match := _INSTRUCTION.match(line)):
            root, name, shape, opcode, rest = match.groups()
            end = _closing(rest)
            current[name] = Instruction(
                bool(root),
                name,
                shapes_of(shape),
                opcode,
                tuple(re.findall(r"%([\w.-]+)", rest[:end])),
                rest[end:],
                rest[:end],
            )
    return Program(computations, entry)


def called(instruction: Instruction, attribute: str) -> str | None:
    """The computation that an attribute names."""
    found = re.search(rf"\b{attribute}=%?([\w.-]+)", instruction.attributes)
    return found[1] if found else None


def branches(instruction: Instruction) -> list[str]:
    """The computations of a conditional."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed:
        return re.findall(r"%([\w.-]+)", listed[1])
    return re.findall(r"(?:true|false)_computation=%?([\w.-]+)", instruction.attributes)


def aliases(instruction: Instruction) -> dict[int, int]:
    """Which outputs are the memory of which operands, by number; a lone output is number 0."""
    noted = re.search(r"output_to_operand_aliasing=\{(.*?\))\}", instruction.attributes)
    pairs = re.findall(r"\{(\d*)\}: \((\d+),", noted[1] if noted else "")
    return {int(output or 0): int(operand) for output, operand in pairs}


def is_input(instruction: Instruction) -> bool:
    """Whether it stands for an argument; its text is then the argument's number."""
    return instruction.opcode == "parameter"


def users(computation: dict[str, Instruction], name: str) -> list[tuple[Instruction, str]]:
    """Users of a value and the name they use, bitcasts and get-tuple-elements followed."""
    found = []
    for user in computation.values():
        if name in user.operands:
            if user.opcode == "bitcast" and not user.root:
                found += users(computation, user.name)
            else:
                found.append((user, name))
    return found


def array_shapes(program: Program) -> frozenset[tuple[int, ...]]:
    """Dimensions of all arrays outside of fusions."""
    within = fused(program)
    return frozenset(
        shape.dims
        for name, computation in program.computations.items()
        if name not in within
        for i in computation.values()
        for shape in i.shapes
    )


def fused(program: Program) -> set[str | None]:
    """Computations that are fusions, whose arrays are in no memory."""
    return {
        called(i, "calls")
        for c in program.computations.values()
        for i in c.values()
        if i.opcode == "fusion"
    }
