"""How often the loops of optimised HLO turn.

XLA notes it where it knows; elsewhere it follows from where the counter starts, what a turn adds to
it, and the bound with which it is compared, wherever XLA has put these: fusions, copies, tuples.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from alphamed_jax.compiled.hlo import Instruction, Program, called


class Line(NamedTuple):
    """A number that depends on the counter x of a loop as `slope * x + offset`."""

    slope: int
    offset: int


Given = Callable[[int, int | None], Line | None]
"""The value of a parameter, or of one element of it; None: unknown."""

# These give on what they are given.
_SAME = {"copy", "bitcast", "convert", "copy-start", "copy-done", "opt-barrier", "reshape"}


def trip_count(program: Program, loop: Instruction) -> int | None:
    """Turns of a `while` loop; None: only known at run time, or not by this reader."""
    noted = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if noted:
        return int(noted[1])
    condition, body = (called(loop, name) or "" for name in ("condition", "body"))
    around = next(name for name, c in program.computations.items() if c.get(loop.name) == loop)

    def turned(element: int | None) -> Line | None:
        """An element of the state after a turn; x stands for it before."""

        def before(_: int, other: int | None) -> Line | None:
            return Line(1, 0) if other == element else None

        return _value(program, body, _root(program, body).name, before, element)

    counters: dict[int | None, Line] = {}

    def compared(_: int, element: int | None) -> Line | None:
        """What the condition sees of the state: the bound, or the counter."""
        line = turned(element)
        if line == Line(1, 0):  # it stays as it was before the loop
            return _value(program, around, loop.operands[0], lambda *_: None, element)
        if line is not None:
            counters[element] = line
        return None if line is None else Line(1, 0)

    compare = _compare(program, condition, compared)
    if compare is None or len(counters) != 1:
        return None
    ((element, step),) = counters.items()
    start = _value(program, around, loop.operands[0], lambda *_: None, element)
    if start is None or step.slope != 1:
        return None
    (left, right), direction = compare
    slope, offset = left.slope - right.slope, left.offset - right.offset
    return turns(slope * start.offset + offset, slope * step.offset, direction)


def turns(first: int, step: int, direction: str) -> int | None:
    """How many of `first`, `first + step`, .. compare with 0 as asked, up to one that does not.

    Args:
      direction: LT, LE, GT, GE, NE or EQ.

    Returns:
      None: all of them do.
    """
    if direction in ("GT", "GE"):
        first, step, direction = -first, -step, {"GT": "LT", "GE": "LE"}[direction]
    if direction in ("LT", "LE"):
        first -= direction == "LE"  # of whole numbers, <= 0 is < 1
        if first >= 0:
            return 0
        return -(first // step) if step > 0 else None
    if direction == "EQ":
        return 0 if first else (1 if step else None)
    if first == 0:
        return 0
    return -first // step if step and first % step == 0 and -first // step > 0 else None


def _root(program: Program, computation: str) -> Instruction:
    return next(i for i in program.computations[computation].values() if i.root)


def _compare(
    program: Program, computation: str, given: Given
) -> tuple[tuple[Line, Line], str] | None:
    """Both sides of the comparison that a computation ends with, and its direction."""
    root = _root(program, computation)
    if root.opcode == "fusion":
        inside = _passed(program, computation, root, given)
        return _compare(program, called(root, "calls") or "", inside)
    direction = re.search(r"direction=(\w+)", root.attributes)
    if root.opcode != "compare" or not direction:
        return None
    left, right = (_value(program, computation, name, given) for name in root.operands)
    return None if left is None or right is None else ((left, right), direction[1])


def _passed(program: Program, computation: str, caller: Instruction, given: Given) -> Given:
    """The parameters of a computation that a fusion or call passes its operands to."""

    def of_operand(number: int, element: int | None) -> Line | None:
        return _value(program, computation, caller.operands[number], given, element)

    return of_operand


def _value(
    program: Program, computation: str, name: str, given: Given, element: int | None = None
) -> Line | None:
    """What is known of a whole number.

    Args:
      element: of a tuple, the one that is asked for.
    """
    known = program.computations[computation].get(name)
    if known is None:
        return None

    def operand(number: int, element: int | None = None) -> Line | None:
        return _value(program, computation, known.operands[number], given, element)

    if known.opcode == "parameter":
        return given(int(known.text), element)
    if known.opcode == "constant":
        return Line(0, int(known.text)) if re.fullmatch(r"-?\d+", known.text) else None
    if known.opcode == "get-tuple-element":
        index = re.search(r"index=(\d+)", known.attributes)
        return operand(0, int(index[1])) if index else None
    if known.opcode == "tuple":
        return None if element is None else operand(element)
    if known.opcode in _SAME:
        return operand(0, None if known.opcode.startswith("copy-") else element)
    if known.opcode in ("fusion", "call"):
        target = called(known, "calls") or called(known, "to_apply") or ""
        inside = _passed(program, computation, known, given)
        return _value(program, target, _root(program, target).name, inside, element)
    if known.opcode in ("add", "subtract"):
        a, b = operand(0), operand(1)
        if a is None or b is None:
            return None
        sign = 1 if known.opcode == "add" else -1
        return Line(a.slope + sign * b.slope, a.offset + sign * b.offset)
    return None
