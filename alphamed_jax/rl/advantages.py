"""Group-relative advantages."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Normalize = Literal["std", "none", "leave_one_out"]
STD_FLOOR = 1e-6


@functools.partial(jax.jit, static_argnames=("group_size", "normalize"))
def group_advantages(
    rewards: Float[Array, "B"], group_size: int, normalize: Normalize = "std"
) -> Float[Array, "B"]:
    """Advantage of each response over its group; rows of a group are adjacent.

    std: (r - mean) / (s + 1e-6) with the sample standard deviation s (N - 1), as GRPO
    (Shao et al. 2024); none: r - mean (Dr. GRPO, Liu et al. 2025); leave_one_out: r - mean of
    the others (RLOO, Ahmadian et al. 2024). A group of equal rewards has advantage exactly 0.

    Raises:
      ValueError: group_size is below 2 or does not divide the rows.
    """
    if group_size < 2 or rewards.shape[0] % group_size:
        raise ValueError(
            f"{rewards.shape[0]} rewards do not form groups of {group_size} (at least 2)."
        )
    groups = rewards.reshape(-1, group_size)
    centred = groups - groups.mean(-1, keepdims=True)
    if normalize == "std":
        centred = centred / (groups.std(-1, ddof=1, keepdims=True) + STD_FLOOR)
    elif normalize == "leave_one_out":
        centred = centred * (group_size / (group_size - 1))
    constant = groups.max(-1, keepdims=True) == groups.min(-1, keepdims=True)
    return jnp.where(constant, 0.0, centred).reshape(-1)
