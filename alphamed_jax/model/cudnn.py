"""cuDNN's fused attention for GPUs, through `jax.nn.dot_product_attention`.

bfloat16 and float16 only, heads of a multiple of 8 up to 128, key and query lengths even (as all
buckets of a rollout are). The mask of packed rows is a [P·n 1 T S] array of the compute dtype, one
for all heads; scores exist in no array. A prompt's keys are copied for each row, which dense
attention and splash do not need.

Letters: P prompts, n packed rows of T tokens beside each, S prompt keys, N query heads, K key/value
heads, H head width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alphamed_jax.model.masks import causal_mask, valid_mask
from alphamed_jax.model.mesh import constrain

WIDEST_HEAD = 128


def takes_heads_of(width: int) -> bool:
    """Whether every GPU that cuDNN attention runs on takes heads of this width."""
    return width % 8 == 0 and width <= WIDEST_HEAD


def causal_attention(
    q: Float[Array, "P T N H"],
    k: Float[Array, "P T K H"],
    v: Float[Array, "P T K H"],
    emulated: bool = False,
) -> Float[Array, "P T N H"]:
    """Each token sees itself and those before it.

    Sequences padded on the right need no mask: no token that counts sees padding.

    Args:
      emulated: compute the same without cuDNN, on any device.
    """
    return _attend(q, k, v, None, emulated)


def prefix_attention(
    q: Float[Array, "P n T N H"],
    prompt_k: Float[Array, "P S K H"],
    prompt_v: Float[Array, "P S K H"],
    prompt_lengths: Int[Array, "P"],
    own_k: Float[Array, "P n T K H"],
    own_v: Float[Array, "P n T K H"],
    segment_ids: Int[Array, "P n T"] | None = None,
    emulated: bool = False,
) -> Float[Array, "P n T N H"]:
    """Each token sees the valid part of its prompt and, causally, its segment of its packed row.

    Args:
      segment_ids: which response a token belongs to: it sees no other one's. None: one a row.
      emulated: compute the same without cuDNN, on any device.
    """
    prompts, count, length = q.shape[:3]
    width = prompt_k.shape[1]
    own_mask = causal_mask(length, segment_ids)
    visible = valid_mask(prompt_lengths, width)[:, None, None]
    masks = (visible, width), (own_mask, length)
    wide = (jnp.broadcast_to(x, (prompts, count, length, keys)) for x, keys in masks)
    mask = jax.lax.collapse(jnp.concatenate(list(wide), axis=3), 0, 2)[:, None]

    def beside(prompt, own):
        return jax.lax.collapse(jnp.concatenate([copied(prompt, count), own], axis=2), 0, 2)

    k, v = beside(prompt_k, own_k), beside(prompt_v, own_v)
    return _attend(jax.lax.collapse(q, 0, 2), k, v, mask, emulated).reshape(q.shape)


def copied(x: Float[Array, "P S K H"], count: int) -> Float[Array, "P n S K H"]:
    """A copy for each of n packed rows. Cast there and back: their gradients add up in float32."""
    wide = jnp.broadcast_to(x.astype(jnp.float32)[:, None], (len(x), count, *x.shape[1:]))
    return wide.astype(x.dtype)


def repeated(x: Float[Array, "B S K H"], copies: int) -> jax.Array:
    """Each head several times, side by side; gradients add up as those of `copied`."""
    return jnp.repeat(x.astype(jnp.float32), copies, axis=2).astype(x.dtype)


def _attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    mask: Bool[Array, "B 1 T S"] | None,
    emulated: bool,
) -> Float[Array, "B T N H"]:
    """Under `mask`, or causal without one. All heads are split alike: cuDNN's partitioner asks it.

    Key/value heads fewer than the tensor axis are copied until each device has one.
    """
    mesh = jax.sharding.get_abstract_mesh()
    tensor = 1 if mesh.empty else mesh.shape["tensor"]
    copies = max(1, tensor // k.shape[2])
    k, v = (repeated(x, copies) if copies > 1 else x for x in (k, v))
    q, k, v = (constrain(x, "batch", None, "heads", None) for x in (q, k, v))
    if mask is not None:
        mask = constrain(mask, "batch", None, None, None)
    mixed = jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=mask,
        is_causal=mask is None,
        implementation="xla" if emulated else "cudnn",
    )
    return constrain(mixed, "batch", None, "heads", None)
