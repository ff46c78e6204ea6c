"""Reading compiled programs: what a loop's step touches, and which constants are baked in."""

import re

import numpy as np

_WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "bf16": 2, "f16": 2}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)$")
# These give a name to bytes that are there already.
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "conditional"}


def _bytes(text):
    """Bytes of all shapes that `text` names."""
    sizes = (
        _WIDTHS.get(kind, 8) * int(np.prod([int(n) for n in dims.split(",") if n]))
        for kind, dims in _SHAPE.findall(text)
    )
    return sum(sizes)


def _computations(program):
    """Computation name -> its instructions (is root, name, shape, opcode, rest of the line)."""
    found, current = {}, None
    for line in program.splitlines():
        if line.endswith("{") and "->" in line:
            current = found.setdefault(line.removeprefix("ENTRY ").split()[0].lstrip("%"), [])
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append((bool(match[1]), *match.groups()[1:]))
    return found


def bytes_per_step(program):
    """Bytes that one step of the largest `while` loop reads and writes, inner loops once.

    From optimised HLO. An update in place counts as what it writes, not as the whole array.
    """
    computations = _computations(program)

    def touched(name):
        shapes = {label: shape for _, label, shape, _, _ in computations[name]}
        total = 0
        for _, _, shape, opcode, rest in computations[name]:
            arguments, _, attributes = rest.partition("), ")
            if opcode == "while":
                total += touched(re.search(r"body=%?([\w.-]+)", attributes)[1])
            if opcode in _FREE:
                continue
            operands = [shapes[label] for label in re.findall(r"%([\w.-]+)", arguments)]
            called = re.search(r"calls=%?([\w.-]+)", attributes)
            inner = computations[called[1]] if called else []
            in_place = opcode == "dynamic-update-slice" or any(
                root and kind == "dynamic-update-slice" for root, _, _, kind, _ in inner
            )
            sizes = [_bytes(operand) for operand in operands]
            if in_place:
                sizes.remove(_bytes(shape))  # the array that is updated
                total += 2 * sum(sizes)
            else:
                total += sum(sizes) + _bytes(shape)
        return total

    bodies = set(re.findall(r"body=%?([\w.-]+)", program))
    return max(touched(name) for name in bodies)


def largest_constant(program):
    """Elements of the largest constant in StableHLO text, one value repeated not counted."""
    sizes = [0]
    for line in program.splitlines():
        match = re.search(r"stablehlo\.constant dense(_resource)?<(.*)> : tensor<([^>]*)>", line)
        if match and (match[1] or match[2][0] in '["'):
            sizes.append(int(np.prod([int(n) for n in match[3].split("x")[:-1]])))
    return max(sizes)
