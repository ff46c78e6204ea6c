"""Arrays in 8 bits: whole numbers from -127 to 127, and a float32 scale for those that share one.

A weight has a scale for each output channel, keys and values one for each head and token. A scale
is always that of something a product does not sum over, or of one of its factors' own: it
multiplies the product, or the other factor, so that no array of floating-point numbers is ever
made of the 8 bits. Rounding is to the nearest, by at most half a scale.

A function here takes either: arrays of floating-point numbers pass through as they are.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MOST = 127


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["values", "scale"], meta_fields=[]
)
@dataclass(frozen=True)
class Int8:
    """`values` times `scale` stand for an array."""

    values: Any
    """int8, in the array's shape."""
    scale: Any
    """float32, in that shape without the axes along which numbers share a scale."""

    @classmethod
    def of(cls, array: Float[Array, "..."], axes: tuple[int, ...]) -> "Int8":
        """The nearest; numbers along `axes` share a scale, by which the largest of them is 127."""
        wide = array.astype(jnp.float32)
        scale = jnp.abs(wide).max(axes) / MOST
        # All zeros stay zeros.
        divisor = jnp.expand_dims(jnp.where(scale > 0, scale, 1), axes)
        return cls(jnp.round(wide / divisor).astype(jnp.int8), scale)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.values.shape


Held = jax.Array | Int8
"""An array, in floating point or in 8 bits."""


def unscaled(array: Any, dtype: Any) -> Any:
    """As a factor of a product: 8 bits in `dtype`, in which they are exact, without their scale."""
    return array.values.astype(dtype) if isinstance(array, Int8) else array


def scaled(x: jax.Array, array: Any, shape: tuple[int, ...] | None = None) -> jax.Array:
    """`x`, a product with `array` or a factor to meet it, times its scale, in the dtype of `x`.

    Args:
      shape: of the scale, to meet the axes of `x`; None: as it is, over the last ones.
    """
    if not isinstance(array, Int8):
        return x
    scale = array.scale if shape is None else array.scale.reshape(shape)
    return (x.astype(jnp.float32) * scale).astype(x.dtype)
