"""Which key a query sees: the one place where attention's masks are made. True: it is seen."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def causal_mask(
    length: int, segment_ids: Int[Array, "*B T"] | None = None
) -> Bool[Array, "... T T"]:
    """A token sees itself and those before it [T T], of its own segment alone [*B T T]."""
    mask = jnp.tril(jnp.ones((length, length), bool))
    if segment_ids is None:
        return mask
    return mask & (segment_ids[..., :, None] == segment_ids[..., None, :])


def valid_mask(lengths: Int[Array, "*B"], width: int) -> Bool[Array, "*B S"]:
    """What is no padding of sequences that are padded on the right."""
    return jnp.arange(width) < lengths[..., None]


def ring_mask(
    cursor: Int[Array, ""], lengths: Int[Array, "B"], capacity: int
) -> Bool[Array, "B C"]:
    """The last `lengths` places of a ring of `capacity`, written up to and with `cursor`."""
    return (cursor - jnp.arange(capacity)) % capacity < lengths[:, None]
