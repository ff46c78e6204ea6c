"""Which attention runs where, and what the layers of a forward pass attend with.

Splash on TPUs, cuDNN on GPUs, dense elsewhere. Each has the same two functions on [.. T heads H],
`causal_attention` and `prefix_attention`, with the same result. Decoding has one of its own on
every platform, `dense.prefix_decode`: with one query per response its scores are small, and it
reads each cache once, which is all that a kernel could do.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from alphamed_jax.errors import UserError
from alphamed_jax.model import cudnn, dense, splash

# (q [.. T N H], k [.. T K H], v [.. T K H]) -> [.. T N H]
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
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


def causal_attend(how: Attention = DENSE) -> Attend:
    """Attention of sequences padded on the right, as prompts are.

    No token that counts sees padding; what stands there is arbitrary.
    """
    return _function(how, "causal_attention")


def prefix_attend(
    how: Attention,
    prompt_lengths: Int[Array, "P"],
    prompt_width: int,
    shape: tuple[int, int, int],
    segment_ids: Int[Array, "P n T"] | None,
) -> Attend:
    """Attention of sequences [P Tp+n·T ..]: a prompt, and n packed rows of responses beside it.

    Args:
      shape: of the packed rows, (P, n, T).
      segment_ids: which response a token belongs to: it sees no other one's. None: one a row.
    """
    of_prompts, beside = causal_attend(how), _function(how, "prefix_attention")

    def attend(q, k, v):
        prompts = [x[:, :prompt_width] for x in (q, k, v)]
        rows_q, *own = (x[:, prompt_width:].reshape(*shape, *x.shape[2:]) for x in (q, k, v))
        mixed = beside(rows_q, *prompts[1:], prompt_lengths, *own, segment_ids)
        mixed = mixed.reshape(shape[0], -1, *q.shape[2:])
        return jnp.concatenate([of_prompts(*prompts), mixed], axis=1)

    return attend


def _function(how: Attention, name: str) -> Callable[..., jax.Array]:
    """`causal_attention` or `prefix_attention` of a kind; all take the same arrays."""
    function = getattr({"dense": dense, "splash": splash, "cudnn": cudnn}[how.kind], name)
    return functools.partial(function, emulated=True) if how.emulated else function
