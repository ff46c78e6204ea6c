"""Levels of difficulty: L1, which a base model always answers right, to L6, which it never does.

With five responses to a question they are those of AlphaMed (arXiv 2505.17952): L1 five are right,
L2 four, and so on to L6, none. With another number L1 is still all, L6 none, and L2 to L5 are
quarters of the pass rate between them: L5 up to 25 %, L4 up to 50 %, L3 up to 75 %, L2 above.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from alphamed_jax.errors import UserError

LEVELS = (1, 2, 3, 4, 5, 6)
EASIEST, HARDEST = LEVELS[0], LEVELS[-1]
_QUARTERS = len(LEVELS) - 2
_SPAN = re.compile(r"L?([1-6])(?:-L?([1-6]))?", re.IGNORECASE)


def levels_of(passes: Int[np.ndarray, "n"], samples: int) -> Int[np.ndarray, "n"]:
    """The level of each question.

    Args:
      passes: right responses to each.
      samples: responses to each, at least 1.

    Raises:
      ValueError: fewer than 0 or more than `samples` are right.
    """
    if samples < 1 or (len(passes) and not 0 <= passes.min() <= passes.max() <= samples):
        raise ValueError(f"0 to {samples} right responses expected, of at least one.")
    quarter = -(-_QUARTERS * passes.astype(np.int64) // samples)
    between = HARDEST - quarter
    return np.select([passes == samples, passes == 0], [EASIEST, HARDEST], between)


def level_name(level: int) -> str:
    """How a level is called: L1 to L6."""
    return f"L{level}"


def read_levels(given: Sequence[str]) -> tuple[int, ...]:
    """The levels of a setting such as `L1 L3-L5`, commas or blanks between them; in order.

    Raises:
      UserError: something that is no level, or a span that runs backwards.
    """
    found: set[int] = set()
    for text in (part for one in given for part in one.replace(",", " ").split()):
        match = _SPAN.fullmatch(text)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if not match or first > last:
            raise UserError(
                f"levels: {text!r} is no level; expected L1 to L6, or a span, as L2-L4."
            )
        found |= set(range(first, last + 1))
    return tuple(sorted(found))
