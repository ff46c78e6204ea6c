"""Dense attention: causal over one sequence, and shared between a prompt and its responses.

Letters: B rows, P prompts, G rollouts per prompt, T queries, S keys, K key/value heads,
Q queries per key/value head (N = K·Q), H head width. Scores and softmax are float32.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alphamed_jax.model.numerics import exact

# A large negative score instead of -inf: a row that sees no key stays finite.
MASKED = -1e30


def causal(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    mask: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Grouped-query attention under `mask` (True: the query sees the key)."""
    batch, queries, heads, width = q.shape
    q = q.reshape(batch, queries, k.shape[1], -1, width)
    product = functools.partial(jnp.einsum, precision=exact(q.dtype))
    scores = product("btkqh,bksh->bkqts", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores * width**-0.5, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return product("bkqts,bksh->btkqh", weights, v).reshape(batch, queries, heads, width)


def shared(
    q: Float[Array, "P G T N H"],
    prompt_k: Float[Array, "P K S0 H"],
    prompt_v: Float[Array, "P K S0 H"],
    prompt_mask: Bool[Array, "P S0"],
    own_k: Float[Array, "P G K S1 H"],
    own_v: Float[Array, "P G K S1 H"],
    own_mask: Bool[Array, "#P #G T S1"],
) -> Float[Array, "P G T N H"]:
    """Attention of a group's responses over their common prompt and their own tokens.

    One softmax over both key sets. The prompt's keys exist once per group, so decoding reads
    them once per group, and in training their gradient is the sum over the group.
    """
    prompts, group, queries, heads, width = q.shape
    q = (q * jnp.asarray(width**-0.5, q.dtype)).reshape(
        prompts, group, queries, prompt_k.shape[1], -1, width
    )
    f32 = jnp.float32
    product = functools.partial(jnp.einsum, precision=exact(q.dtype))
    to_prompt = product("pgtkqh,pksh->pkqgts", q, prompt_k, preferred_element_type=f32)
    to_prompt = jnp.where(prompt_mask[:, None, None, None, None], to_prompt, MASKED)
    to_own = product("pgtkqh,pgksh->pgkqts", q, own_k, preferred_element_type=f32)
    to_own = jnp.where(own_mask[:, :, None, None], to_own, MASKED)
    to_own = jnp.moveaxis(to_own, 1, 3)  # p k q g t s
    top = jnp.maximum(to_prompt.max(-1), to_own.max(-1))[..., None]
    top = jax.lax.stop_gradient(top)
    to_prompt, to_own = jnp.exp(to_prompt - top), jnp.exp(to_own - top)
    total = to_prompt.sum(-1) + to_own.sum(-1)
    mixed = product("pkqgts,pksh->pgtkqh", to_prompt.astype(q.dtype), prompt_v) + product(
        "pkqgts,pgksh->pgtkqh", to_own.astype(q.dtype), own_v
    )
    total = jnp.moveaxis(total, (3, 4), (1, 2))[..., None]  # p g t k q 1
    # Divided in float32: its gradient sums over the head's width.
    mixed = (mixed.astype(f32) / total).astype(q.dtype)
    return mixed.reshape(prompts, group, queries, heads, width)


def shared_step(
    q: Float[Array, "P G N H"],
    prompt_k: Float[Array, "P K S0 H"],
    prompt_v: Float[Array, "P K S0 H"],
    prompt_mask: Bool[Array, "P S0"],
    own_k: Float[Array, "B K S1 H"],
    own_v: Float[Array, "B K S1 H"],
    own_mask: Bool[Array, "B S1"],
) -> Float[Array, "P G N H"]:
    """`shared` for one query per response, B = P·G: a decode step.

    The products are written as they lie in memory, keys [S H] times queries [H Q] and weights
    [Q S] times values [S H]: no cache is turned, whatever the compiler would choose for an einsum.
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

    to_prompt = turned(product(prompt_k, turned(by_prompt(q))))  # [P K G·Q S0]
    to_prompt = jnp.where(prompt_mask[:, None, None], to_prompt, MASKED)
    to_own = turned(product(own_k, turned(q)))  # [B K Q S1]
    to_own = jnp.where(own_mask[:, None, None], to_own, MASKED)
    top = jnp.maximum(by_response(to_prompt.max(3)), to_own.max(3))
    to_prompt = jnp.exp(to_prompt - by_prompt(top)[..., None])
    to_own = jnp.exp(to_own - top[..., None])
    total = by_response(to_prompt.sum(3)) + to_own.sum(3)
    mixed = by_response(product(to_prompt.astype(q.dtype), prompt_v))
    mixed += product(to_own.astype(q.dtype), own_v)
    return (mixed / total[..., None]).astype(q.dtype).reshape(prompts, group, heads, width)
