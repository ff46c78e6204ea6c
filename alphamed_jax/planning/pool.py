"""How much of a GPU's memory JAX takes for its pool, and whether a run fits into it.

JAX gives programs a share of the card's memory: XLA_CLIENT_MEM_FRACTION (its former name is
XLA_PYTHON_CLIENT_MEM_FRACTION), by default 0.75. Without preallocation
(XLA_PYTHON_CLIENT_PREALLOCATE is false) the pool grows as it is used, up to the same share. Only
XLA_PYTHON_CLIENT_ALLOCATOR=platform has none.
https://docs.jax.dev/en/latest/gpu_memory_allocation.html
"""

import math
import os
from collections.abc import Mapping

from alphamed_jax.errors import UserError

SHARE, FORMERLY = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
ALLOCATOR = "XLA_PYTHON_CLIENT_ALLOCATOR"
DEFAULT = 0.75


def pool_share(environment: Mapping[str, str] = os.environ) -> float:
    """Share of a GPU's memory that programs may use, as JAX reads it from the environment.

    Raises:
      UserError: the share is no positive number, or given under both names.
    """
    given = {name: environment[name] for name in (SHARE, FORMERLY) if environment.get(name)}
    if len(given) == 2:
        raise UserError(f"{SHARE} and {FORMERLY} are both set; JAX takes only one: unset the last.")
    if environment.get(ALLOCATOR, "").lower() == "platform":
        return 1.0
    for name, text in given.items():
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not 0 < share < math.inf:
            raise UserError(f"{name} is {text!r}: expected a share of the GPU's memory, as 0.9.")
        return share
    return DEFAULT


def pool_line(share: float, card: float) -> str:
    """What is planned with, of a card of so many bytes."""
    return (
        f"JAX's pool takes {share:.4g} of a card's {card / 2**30:.1f} GiB, by default "
        f"{DEFAULT}: {SHARE} changes it, here as in training."
    )
