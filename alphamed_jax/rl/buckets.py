"""Few shapes: prompts, their number and caches come in buckets, so that few programs compile."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

# Caches start this long and double: short responses are read from short caches.
FIRST_CAPACITY = 256


def bucket(length: int, smallest: int = 16) -> int:
    """Round up to 2^k or 3·2^k: few shapes to compile, at most a third of padding."""
    size = smallest
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def pad_prompts(
    prompts: Sequence[Sequence[int]], multiple: int, width: int = 0
) -> tuple[Int[np.ndarray, "P Tp"], Int[np.ndarray, "P"]]:
    """Right-pad prompts to a bucketed width and their number to a multiple of `multiple`.

    Rows added to fill up hold one token, so that no row is empty.

    Args:
      width: not narrower than this.
    """
    rows = -(-len(prompts) // multiple) * multiple
    tokens = np.zeros((rows, max(bucket(max(map(len, prompts))), width)), np.int32)
    lengths = np.ones(rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
        lengths[row] = len(prompt)
    return tokens, lengths


def capacities(length: int) -> list[int]:
    """Cache lengths for responses of up to `length` tokens: doubling, the last one `length`."""
    sizes, size = [], FIRST_CAPACITY
    while 2 * size <= length:
        sizes.append(size)
        size *= 2
    return [*sizes, length]
