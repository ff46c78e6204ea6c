"""The caches of prompts: prefilled once, waiting for slots, and beside the slots that read them.

Letters as in `rl.decode`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alphamed_jax.model.cache import lengthened, placed
from alphamed_jax.rl.language_model import Caches, LanguageModel
from alphamed_jax.rl.shards import put_rows, split_shards, take_caches, take_rows


class PromptCache(NamedTuple):
    """Keys and values of prompts per layer, [P K Tp H] each."""

    caches: Caches
    lengths: Int[Array, "P"]


class Prefilled(NamedTuple):
    """Prompts that wait for their responses to get a slot."""

    prompts: PromptCache
    last: Float[Array, "P D"]
    """Hidden state of each prompt's last token."""


@functools.partial(jax.jit, static_argnames=("model", "width"))
def prefill(
    model: LanguageModel,
    params: Any,
    tokens: Int[Array, "P Tp"],
    lengths: Int[Array, "P"],
    *,
    width: int,
) -> Prefilled:
    """Forward the prompts once, padded on the right; their caches are `width` long."""
    caches, last = model.prefill(params, tokens, lengths)
    return Prefilled(PromptCache(lengthened(caches, width), lengths), last)


@functools.partial(jax.jit, donate_argnames="kept")
def merge_prefilled(kept: Prefilled, new: Prefilled, fresh: Bool[Array, "P"]) -> Prefilled:
    """The prompts of `new` where `fresh`, of `kept` elsewhere."""
    return jax.tree.map(
        lambda a, b: jnp.where(fresh.reshape(-1, *[1] * (a.ndim - 1)), b, a), kept, new
    )


@jax.jit
def expand_prompt_cache(prompts: PromptCache, index: Int[Array, "R s"]) -> PromptCache:
    """A copy of its prompt's cache for each slot; `index` counts within the data shard."""
    lengths = take_rows(split_shards(prompts.lengths, index.shape[0]), index)
    caches = jax.tree.map(lambda x: take_caches(x, index), prompts.caches)
    return PromptCache(caches, lengths.reshape(-1))


@functools.partial(jax.jit, donate_argnames="prompts")
def insert_prompts(
    prompts: PromptCache,
    prefilled: PromptCache,
    slot: Int[Array, "R k"],
    prompt: Int[Array, "R k"],
) -> PromptCache:
    """Write the caches of refilled slots, in place; all others stay as they lie.

    Args:
      slot: the slots; beyond the last: none.
      prompt: index of the prompt of each among those of the data shard.
    """
    data_shards = slot.shape[0]

    def put(cache, source):
        taken = take_rows(split_shards(source, data_shards), prompt, "kv_heads")
        filled = put_rows(split_shards(cache, data_shards), slot, taken)
        return placed(filled.reshape(cache.shape))

    lengths = take_rows(split_shards(prefilled.lengths, data_shards), prompt)
    return PromptCache(
        jax.tree.map(put, prompts.caches, prefilled.caches),
        put_rows(split_shards(prompts.lengths, data_shards), slot, lengths).reshape(-1),
    )
