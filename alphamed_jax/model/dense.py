"""Attention by products that XLA chooses: of sequences, of responses beside their prompt, decoding.

Letters: B rows, P prompts, n packed rows of T tokens beside each, S keys, K key/value heads,
Q queries per key/value head (N = K·Q), H head width. Scores and softmax are float32.

Arrays are [.. T heads H]. Caches alone are [B K S H], as `prefix_decode` reads them.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alphamed_jax.model.int8 import Held, scaled, unscaled
from alphamed_jax.model.masks import causal_mask, valid_mask
from alphamed_jax.model.numerics import exact

# A large negative score instead of -inf: a row that sees no key stays finite.
MASKED = -1e30


def causal_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T N H"]:
    """Grouped-query attention: each token sees itself and those before it, of its segment."""
    batch, length, heads, width = q.shape
    k, v = to_cache(k), to_cache(v)  # read a head at a time
    q = q.reshape(batch, length, k.shape[1], -1, width)
    product = functools.partial(jnp.einsum, precision=exact(q.dtype))
    scores = product("btkqh,bksh->bkqts", q, k, preferred_element_type=jnp.float32)
    seen = causal_mask(length, segment_ids)[..., None, None, :, :]
    scores = jnp.where(seen, scores * width**-0.5, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return product("bkqts,bksh->btkqh", weights, v).reshape(batch, length, heads, width)


def prefix_attention(
    q: Float[Array, "P n T N H"],
    prompt_k: Float[Array, "P S K H"],
    prompt_v: Float[Array, "P S K H"],
    prompt_lengths: Int[Array, "P"],
    own_k: Float[Array, "P n T K H"],
    own_v: Float[Array, "P n T K H"],
    segment_ids: Int[Array, "P n T"] | None = None,
) -> Float[Array, "P n T N H"]:
    """Attention of packed rows over their common prompt and, causally, their own segments.

    One softmax over both key sets. The prompt's keys exist once, and their gradient is the sum
    over the rows beside it.
    """
    prompts, rows, length, heads, width = q.shape
    prompt_k, prompt_v, own_k, own_v = map(to_cache, (prompt_k, prompt_v, own_k, own_v))
    q = (q * jnp.asarray(width**-0.5, q.dtype)).reshape(
        prompts, rows, length, prompt_k.shape[1], -1, width
    )
    f32 = jnp.float32
    product = functools.partial(jnp.einsum, precision=exact(q.dtype))
    to_prompt = product("pntkqh,pksh->pkqnts", q, prompt_k, preferred_element_type=f32)
    prompt_mask = valid_mask(prompt_lengths, prompt_k.shape[2])
    to_prompt = jnp.where(prompt_mask[:, None, None, None, None], to_prompt, MASKED)
    to_own = product("pntkqh,pnksh->pnkqts", q, own_k, preferred_element_type=f32)
    own_mask = causal_mask(length, segment_ids)[..., None, None, :, :]
    to_own = jnp.where(own_mask, to_own, MASKED)
    to_own = jnp.moveaxis(to_own, 1, 3)  # p k q n t s
    top = jnp.maximum(to_prompt.max(-1), to_own.max(-1))[..., None]
    top = jax.lax.stop_gradient(top)
    to_prompt, to_own = jnp.exp(to_prompt - top), jnp.exp(to_own - top)
    total = to_prompt.sum(-1) + to_own.sum(-1)
    mixed = product("pkqnts,pksh->pntkqh", to_prompt.astype(q.dtype), prompt_v) + product(
        "pkqnts,pnksh->pntkqh", to_own.astype(q.dtype), own_v
    )
    total = jnp.moveaxis(total, (3, 4), (1, 2))[..., None]  # p n t k q 1
    # Divided in float32: its gradient sums over the head's width.
    mixed = (mixed.astype(f32) / total).astype(q.dtype)
    return mixed.reshape(prompts, rows, length, heads, width)


def to_cache(x: Float[Array, "*B T K H"]) -> Float[Array, "*B K T H"]:
    """Keys or values in the order of caches."""
    return jnp.swapaxes(x, -3, -2)


def prefix_decode(
    q: Float[Array, "P G N H"],
    prompt_k: Held,
    prompt_v: Held,
    prompt_mask: Bool[Array, "P S0"],
    own_k: Held,
    own_v: Held,
    own_mask: Bool[Array, "B S1"],
) -> Float[Array, "P G N H"]:
    """`prefix_attention` for one query of each of G responses to a prompt, B = P·G: a decode step.

    The products are written as they lie in memory, keys [S H] times queries [H Q] and weights
    [Q S] times values [S H]: no cache is turned, whatever the compiler would choose for an einsum.

    Args:
      prompt_k, prompt_v: caches [P K S0 H], as `cache` has them.
      own_k, own_v: [B K S1 H].
    """
    prompts, group, heads, width = q.shape
    kv_heads = prompt_k.shape[1]
    queries = heads // kv_heads
    q = (q * jnp.asarray(width**-0.5, q.dtype)).reshape(-1, kv_heads, queries, width)

    def by_prompt(x: jax.Array) -> jax.Array:
        """[B K Q ..] as [P K G·Q ..]."""
        x = jnp.moveaxis(x.reshape(prompts, group, *x.shape[1:]), 1, 2)
        return x.reshape(prompts, kv_heads, group * queries, *x.shape[4:])

    def by_response(x: jax.Array) -> jax.Array:
        """The way back."""
        x = x.reshape(prompts, kv_heads, group, queries, *x.shape[3:])
        return jnp.moveaxis(x, 2, 1).reshape(-1, kv_heads, queries, *x.shape[4:])

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        dims = (((3,), (2,)), ((0, 1), (0, 1)))
        wide = {"preferred_element_type": jnp.float32, "precision": exact(q.dtype)}
        return jax.lax.dot_general(a, b, dims, **wide)

    def turned(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x, 2, 3)

    def of_each(x: jax.Array, cache: Held) -> jax.Array:
        """Scores or weights [.. K .. S] times the scale of what they belong to."""
        rows, heads, length, _ = cache.shape
        return scaled(x, cache, (rows, heads, 1, length))

    def scores(keys: Held, queries: jax.Array) -> jax.Array:
        return of_each(turned(product(unscaled(keys, q.dtype), turned(queries))), keys)

    def mix(weights: jax.Array, values: Held) -> jax.Array:
        weights = of_each(weights, values).astype(q.dtype)
        return product(weights, unscaled(values, q.dtype))

    to_prompt = scores(prompt_k, by_prompt(q))  # [P K G·Q S0]
    to_prompt = jnp.where(prompt_mask[:, None, None], to_prompt, MASKED)
    to_own = scores(own_k, q)  # [B K Q S1]
    to_own = jnp.where(own_mask[:, None, None], to_own, MASKED)
    top = jnp.maximum(by_response(to_prompt.max(3)), to_own.max(3))
    to_prompt = jnp.exp(to_prompt - by_prompt(top)[..., None])
    to_own = jnp.exp(to_own - top[..., None])
    total = by_response(to_prompt.sum(3)) + to_own.sum(3)
    mixed = by_response(mix(to_prompt, prompt_v)) + mix(to_own, own_v)
    return (mixed / total[..., None]).astype(q.dtype).reshape(prompts, group, heads, width)
