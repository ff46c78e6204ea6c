"""Which attention runs where, and what the layers of a forward pass attend with.

Splash on TPUs, cuDNN on GPUs, dense elsewhere; all give the same result. Decoding has one of its
own on every platform, `attention.shared_step`: with one query per response its scores are small,
and it reads each cache once, which is all that a kernel could do.
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from alphamed_jax.errors import UserError
from alphamed_jax.model import attention, cudnn, splash
from alphamed_jax.model.network import Attend

Kind = Literal["dense", "splash", "cudnn"]
PLATFORMS = {"splash": ("tpu",), "cudnn": ("gpu", "cuda")}


class Attention(NamedTuple):
    """How attention is computed; changes memory and speed, not the result."""

    kind: Kind = "dense"
    emulated: bool = False
    """Without the platform that it is for: Pallas interpreted, cuDNN's part by XLA. For tests."""


DENSE = Attention()


def choose_attention(
    name: Literal["auto"] | Kind, platform: str, dtype: Any, head_dim: int
) -> Attention:
    """The attention of a run; `auto` takes what fits platform, compute dtype and head width.

    Args:
      platform: of the devices, as JAX names it.

    Raises:
      UserError: a kind that this platform, dtype or width does not allow.
    """
    half = jnp.dtype(dtype).itemsize == 2
    fused = half and cudnn.takes_heads_of(head_dim)
    if name == "auto":
        if platform in PLATFORMS["splash"]:
            return Attention("splash")
        return Attention("cudnn" if platform in PLATFORMS["cudnn"] and fused else "dense")
    if name != "dense" and platform not in PLATFORMS[name]:
        raise UserError(
            f"update.attention is {name}, which needs a {PLATFORMS[name][0].upper()}, but this "
            f"runs on {platform}: take auto or dense."
        )
    if name == "cudnn" and not half:
        raise UserError(
            f"update.attention is cudnn, which takes bfloat16, but update.compute_dtype is "
            f"{jnp.dtype(dtype).name}: take bfloat16, or update.attention dense."
        )
    if name == "cudnn" and not fused:
        raise UserError(
            f"update.attention is cudnn, which takes heads of a multiple of 8 up to "
            f"{cudnn.WIDEST_HEAD}, but the model's are {head_dim} wide: take auto or dense."
        )
    return Attention(name)


def over_prompts(how: Attention, lengths: Int[Array, "P"], width: int) -> Attend:
    """Attention of prompts [P Tp ..], right-padded: causal. What stands at padding is arbitrary."""
    if how.kind == "splash":
        return lambda q, k, v: splash.causal(q, k, v, how.emulated)
    if how.kind == "cudnn":
        return lambda q, k, v: cudnn.causal(q, k, v, how.emulated)
    positions = jnp.arange(width)
    mask = positions[:, None] >= positions
    mask = mask & (positions < lengths[:, None])[:, None, :]

    def dense(q, k, v):
        return attention.causal(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), mask)

    return dense


def with_lanes(
    how: Attention,
    prompt_lengths: Int[Array, "P"],
    prompt_width: int,
    shape: tuple[int, int, int],
    member: Int[Array, "P n T"] | None,
) -> Attend:
    """Attention of rows [P Tp+n·T ..]: a prompt and n lanes of T tokens that see it and themselves.

    Args:
      shape: of the lanes, (P, n, T).
      member: which response a token belongs to, where lanes hold several: it sees no other one's.
    """
    of_prompts = over_prompts(how, prompt_lengths, prompt_width)
    beside = _beside_prompts(how, prompt_lengths, prompt_width, shape, member)

    def attend(q, k, v):
        prompts = [x[:, :prompt_width] for x in (q, k, v)]
        lanes_q, *own = (x[:, prompt_width:].reshape(*shape, *x.shape[2:]) for x in (q, k, v))
        mixed = beside(lanes_q, *prompts[1:], *own)
        mixed = mixed.reshape(shape[0], -1, *q.shape[2:])
        return jnp.concatenate([of_prompts(*prompts), mixed], axis=1)

    return attend


def _beside_prompts(how, prompt_lengths, prompt_width, shape, member):
    """(q [P n T N H], prompt's k and v [P Tp K H], own k and v [P n T K H]) -> [P n T N H]."""
    if how.kind != "dense":
        lanes = {"splash": splash.lanes, "cudnn": cudnn.lanes}[how.kind]
        return lambda q, prompt_k, prompt_v, k, v: lanes(
            q, prompt_k, prompt_v, prompt_lengths, k, v, member, how.emulated
        )
    length = shape[2]
    visible = jnp.arange(prompt_width) < prompt_lengths[:, None]
    own_mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
    if member is not None:
        own_mask = own_mask & (member[..., :, None] == member[..., None, :])

    def dense(q, prompt_k, prompt_v, k, v):
        prompt_k, prompt_v = (jnp.swapaxes(x, 1, 2) for x in (prompt_k, prompt_v))
        k, v = (jnp.swapaxes(x, 2, 3) for x in (k, v))
        return attention.shared(q, prompt_k, prompt_v, visible, k, v, own_mask)

    return dense
