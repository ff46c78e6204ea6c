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

_WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4}
_WIDTHS |= {"bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "token": 0}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)$")
# These give a name to bytes that are there already.
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "iota"}
_FREE |= {"copy-done", "slice-done", "async-done", "async-update", "partition-id", "replica-id"}
_FREE |= {"all-gather-done", "all-reduce-done", "collective-permute-done", "opt-barrier"}
_FREE_CALLS = ("ConcatBitcast", "AllocateBuffer")
# A part of their first operand is read: as much as they give.
_PARTIAL = {"dynamic-slice", "gather", "slice", "slice-start"}
_CALLS = {"fusion", "call", "async-start", "map"}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


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


def _called(instruction: Instruction, attribute: str) -> str | None:
    found = re.search(rf"\b{attribute}=%?([\w.-]+)", instruction.attributes)
    return found[1] if found else None


def _branches(instruction: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed:
        return re.findall(r"%([\w.-]+)", listed[1])
    return re.findall(r"(?:true|false)_computation=%?([\w.-]+)", instruction.attributes)


def trip_count(program: Program, loop: Instruction) -> int | None:
    """Turns of a `while` loop: as XLA notes them, or read from `i < constant`; None: unknown."""
    noted = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if noted:
        return int(noted[1])
    condition = program.computations[_called(loop, "condition") or ""]
    (root,) = (i for i in condition.values() if i.root)
    if root.opcode == "fusion":  # its operands are passed in order
        inner = program.computations[_called(root, "calls") or ""]
        (compare,) = (i for i in inner.values() if i.root)
        passed = {i.name: root.operands[int(i.text)] for i in inner.values() if _is_input(i)}
        operands = [passed.get(name, name) for name in compare.operands]
        known = inner | condition
    else:
        compare, operands, known = root, list(root.operands), condition
    if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
        return None
    left, right = (known[name] for name in operands)
    if left.opcode == "get-tuple-element" and right.opcode == "constant":
        return int(right.text)
    return None


def _is_input(instruction: Instruction) -> bool:
    return instruction.opcode == "parameter"


def _users(computation: dict[str, Instruction], name: str) -> list[tuple[Instruction, str]]:
    """Users of a value and the name they use, bitcasts and get-tuple-elements followed."""
    found = []
    for user in computation.values():
        if name in user.operands:
            if user.opcode == "bitcast" and not user.root:
                found += _users(computation, user.name)
            else:
                found.append((user, name))
    return found


def _hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.size for shape in shapes if shape.space == 0)


def _read_of(program: Program, fusion: Instruction, position: int) -> int | None:
    """Bytes of an operand that a fusion reads where it only takes slices of it; None: all."""
    inner = program.computations[_called(fusion, "calls") or ""]
    found = [i for i in inner.values() if _is_input(i) and int(i.text) == position]
    read = 0
    for user, name in _users(inner, found[0].name) if found else []:
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


def _written_in_place(program: Program, fusion: Instruction, position: int) -> Shape | None:
    """The update, where all that a fusion does with an operand is to update it in place."""
    inner = program.computations[_called(fusion, "calls") or ""]
    found = [i for i in inner.values() if _is_input(i) and int(i.text) == position]
    users = _users(inner, found[0].name) if found else []
    if len(users) != 1 or users[0][0].operands.index(users[0][1]) != 0:
        return None
    user = users[0][0]
    if user.opcode == "fusion":
        return _written_in_place(program, user, 0)
    if user.opcode not in ("dynamic-update-slice", "scatter"):
        return None
    return inner[user.operands[2 if user.opcode == "scatter" else 1]].shapes[0]


def _fused_traffic(program: Program, instruction: Instruction, operands: list) -> Traffic:
    """What a fusion reads and writes: slices of operands, updates in place, else all."""
    read, updates = 0, {}
    for position, shapes in enumerate(operands):
        size = _hbm(shapes)
        update = _written_in_place(program, instruction, position) if size else None
        if update is not None:
            updates[math.prod(shapes[0].dims)] = update.size
        elif size:
            part = _read_of(program, instruction, position)
            read += size if part is None else min(part, size)
    written = 0
    for shape in instruction.shapes:
        if shape.space == 0:
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
        inside = computation_traffic(program, _called(instruction, "body") or "", unknown_trips)
        return Traffic().plus(inside, unknown_trips if trips is None else trips)
    if opcode == "conditional":
        inside = [computation_traffic(program, b, unknown_trips) for b in _branches(instruction)]
        return max(inside, key=lambda t: t.total)
    operands = [known[name].shapes for name in instruction.operands if name in known]
    if opcode in ("call", "async-start"):
        target = _called(instruction, "to_apply" if opcode == "call" else "calls")
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


def step_body(program: Program) -> str:
    """Name of the body of the `while` loop whose turn moves most bytes: the decode step."""
    loops = (i for c in program.computations.values() for i in c.values() if i.opcode == "while")
    bodies = {_called(loop, "body") or "" for loop in loops}
    return max(bodies, key=lambda name: computation_traffic(program, name).total)


def bytes_per_step(text: str) -> int:
    """Bytes of HBM that one turn of the largest `while` loop reads and writes.

    An update in place counts as what it writes, not as the whole array; inner loops of unknown
    length count once.
    """
    program = parse(text)
    return computation_traffic(program, step_body(program)).total


def large_writes(text: str, size: int) -> list[str]:
    """Names of instructions of the decode step that write `size` bytes or more to HBM.

    With the size of one layer's cache, these are copies of a cache.
    """
    program = parse(text)
    body = step_body(program)
    return [
        f"{i.name} ({i.opcode})"
        for i in program.computations[body].values()
        if traffic(program, body, i).written >= size
    ]


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
    """FLOPs of all matrix products of a program, on one device.

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
            elif i.opcode == "while":
                trips = trip_count(program, i)
                turn = flops(_called(i, "body") or "")
                total += turn * (unknown_trips if trips is None else trips)
            elif i.opcode == "conditional":
                total += max(map(flops, _branches(i)))
            elif i.opcode in _CALLS:
                total += flops(_called(i, "calls") or _called(i, "to_apply") or "")
        return total

    return flops(program.entry)


def collective_bytes(text: str, unknown_trips: int = 1) -> dict[str, dict[str, int]]:
    """Bytes that each kind of collective gives on one device: opcode -> element type -> bytes."""
    program = parse(text)
    found: dict[str, dict[str, int]] = {}
    channels = set()  # a collective spread over several fusions has one channel

    def visit(name: str, times: int):
        for i in program.computations[name].values():
            kind = i.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                channel = re.search(r"channel_id=(\d+)", i.attributes)
                if channel and channel[1] in channels:
                    continue
                channels.add(channel[1] if channel else None)
                given = i.shapes
                if i.opcode.endswith("-start"):
                    given = given[len(i.operands) :] or given
                for shape in given:
                    row = found.setdefault(kind, {})
                    row[shape.kind] = row.get(shape.kind, 0) + times * shape.size
            elif i.opcode == "while":
                trips = trip_count(program, i)
                visit(_called(i, "body") or "", times * (unknown_trips if trips is None else trips))
            elif i.opcode == "conditional":
                costs = [(computation_traffic(program, b).total, b) for b in _branches(i)]
                visit(max(costs)[1], times)
            elif i.opcode in _CALLS:
                target = _called(i, "calls") or _called(i, "to_apply")
                if target:
                    visit(target, times)

    visit(program.entry, 1)
    return found


def largest_buffer(text: str, dimension: int | None = None) -> Shape:
    """The largest array outside of fusions; of those with a `dimension` of this length."""
    program = parse(text)
    fused = {
        _called(i, "calls")
        for c in program.computations.values()
        for i in c.values()
        if i.opcode == "fusion"
    }
    sizes = [
        shape
        for name, computation in program.computations.items()
        if name not in fused
        for i in computation.values()
        for shape in i.shapes
        if dimension is None or dimension in shape.dims
    ]
    return max(sizes, key=lambda shape: shape.size, default=Shape("pred", (0,), 0, 0))


def largest_constant(text: str) -> int:
    """Elements of the largest constant in StableHLO text, one value repeated not counted."""
    sizes = [0]
    for line in text.splitlines():
        match = re.search(r"stablehlo\.constant dense(_resource)?<(.*)> : tensor<([^>]*)>", line)
        if match and (match[1] or match[2][0] in '["'):
            sizes.append(math.prod(int(n) for n in match[3].split("x")[:-1]))
    return max(sizes)
