"""Keys or values of a layer as decoding reads them: [B K S H], in floating point or in 8 bits.

In 8 bits each head of a token has a scale, [B K S]: that of a key multiplies its scores, that of a
value its weights, so that what is read at every step are 8 bits a number (`dense.prefix_decode`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alphamed_jax.model.int8 import Held, Int8
from alphamed_jax.model.mesh import constrain


def hold(x: Float[Array, "*B K S H"], int8: bool) -> Held:
    """As a cache holds them."""
    return Int8.of(x, (x.ndim - 1,)) if int8 else x


def empty(shape: tuple[int, int, int, int], dtype: Any, int8: bool) -> Held:
    """A cache [B K S H] of zeros."""
    if int8:
        return placed(Int8(jnp.zeros(shape, jnp.int8), jnp.zeros(shape[:-1], jnp.float32)))
    return placed(jnp.zeros(shape, dtype))


def write(cache: Held, new: Float[Array, "B K 1 H"], place: Int[Array, ""]) -> Held:
    """The cache with the keys or values of one more token: a slice of each array, in place."""
    held = hold(new, isinstance(cache, Int8))

    def put(into: jax.Array, what: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(into, what, (0, 0, place, 0)[: into.ndim])

    return jax.tree.map(put, cache, held)


def lengthened(cache: Any, length: int) -> Any:
    """Caches with room for so many tokens, empty behind those that they have."""

    def longer(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, length - x.shape[2] if axis == 2 else 0) for axis in range(x.ndim)])

    return jax.tree.map(longer, cache)


def placed(cache: Any) -> Any:
    """Caches with their rows and heads on the devices that work on them."""
    return jax.tree.map(lambda x: constrain(x, "batch", "kv_heads", *(None,) * (x.ndim - 2)), cache)
