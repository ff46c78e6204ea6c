"""Where random numbers come from: one implementation, whatever JAX's switches say."""

import jax
from jaxtyping import Array, Key

IMPLEMENTATION = "threefry2x32"
"""JAX's default: the same numbers on every platform and for every split over devices."""


def random_key(seed: int) -> Key[Array, ""]:
    """The key that everything random of a run derives from; JAX_DEFAULT_PRNG_IMPL is not asked."""
    return jax.random.key(seed, impl=IMPLEMENTATION)
