"""Log-probabilities from hidden states, one chunk of tokens' logits at a time, and their gradient.

No array of size B x T x V is made, forward or backward. The head's gradient is added up over the
chunks in float32, on each data shard apart, and then over the rows: what it is does not
depend on the length of a chunk but for rounding in float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alphamed_jax.model import network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.mesh import constrain, context_data_shards
from alphamed_jax.model.numerics import exact
from alphamed_jax.model.weights import Head
from alphamed_jax.rl.distribution import Sampling, logprobs_and_entropy


def chunk_length(tokens_per_position: int, length: int, limit: int) -> int:
    """The longest divisor of `length` that keeps a chunk within `limit` tokens (at least 1)."""
    divisors = [d for d in range(1, length + 1) if length % d == 0]
    return max(d for d in divisors if d == 1 or d * tokens_per_position <= limit)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def chunked_logprobs(
    config: ModelConfig,
    sampling: Sampling,
    chunk: int,
    head: Params,
    hidden: Float[Array, "P n T D"],
    tokens: Int[Array, "P n T"],
) -> tuple[Float[Array, "P n T"], Float[Array, "P n T"]]:
    """Log-probability and entropy (nats) of each token, from the hidden state that predicts it.

    The entropy carries no gradient.

    Args:
      chunk: positions of T whose logits exist at once; divides T.
      head: what `network.head_weights` takes of the parameters, as training holds them.
    """
    return _forward(config, sampling, chunk, head, hidden, tokens)[0]


def _forward(config, sampling, chunk, head, hidden, tokens):
    used = network.gathered_head(config, head, hidden.dtype)

    def one(_, inputs):
        x, targets = inputs
        return None, logprobs_and_entropy(_logits(used, x), targets, sampling)

    _, pairs = jax.lax.scan(one, None, (_split(hidden, chunk), _split(tokens, chunk)))
    logprobs, entropy = map(_join, pairs)
    return (logprobs, entropy), (head, used, hidden, tokens)


def _backward(config, sampling, chunk, residuals, cotangents):
    head, used, hidden, tokens = residuals
    (name,) = head
    weight, tied, precision = used.array, used.vocabulary_first, exact(hidden.dtype)
    rows = context_data_shards()
    rows = rows if len(hidden) % rows == 0 else 1
    of_features = "...v,vd->...d" if tied else "...v,dv->...d"
    of_head = "rmv,rmd->rvd" if tied else "rmd,rmv->rdv"
    split_by = ("batch", "vocab", None) if tied else ("batch", None, "vocab")

    def by_row(x):
        return x.reshape(rows, -1, x.shape[-1])

    def one(total, inputs):
        x, targets, d = inputs

        def chosen(logits):
            return logprobs_and_entropy(logits, targets, sampling)[0]

        dlogits = jax.vjp(chosen, _logits(used, x))[1](d)[0].astype(x.dtype)
        dx = jnp.einsum(of_features, dlogits, weight, precision=precision)
        factors = (by_row(dlogits), by_row(x)) if tied else (by_row(x), by_row(dlogits))
        wide: Any = {"preferred_element_type": jnp.float32, "precision": precision}
        return constrain(total + jnp.einsum(of_head, *factors, **wide), *split_by), dx

    nothing = constrain(jnp.zeros((rows, *weight.shape), jnp.float32), *split_by)
    parts = tuple(_split(x, chunk) for x in (hidden, tokens, cotangents[0]))
    total, dx = jax.lax.scan(one, nothing, parts, reverse=True)
    whole = constrain(total.sum(0), *network.weights(config)[name].axes)
    return {name: whole.astype(head[name].dtype)}, _join(dx), None


chunked_logprobs.defvjp(_forward, _backward)


def _logits(used: Head, x: Float[Array, "P n c D"]) -> jax.Array:
    return constrain(used(x), "batch", None, None, "vocab")


def _split(x: jax.Array, chunk: int) -> jax.Array:
    """[P n T ..] as [T/c P n c ..]."""
    prompts, rows, length, *rest = x.shape
    return jnp.moveaxis(x.reshape(prompts, rows, length // chunk, chunk, *rest), 2, 0)


def _join(x: jax.Array) -> jax.Array:
    """The way back."""
    x = jnp.moveaxis(x, 0, 2)
    return jax.lax.collapse(x, 2, 4)
