"""The jitted parts of sampling: prefill, the decode loop over slots, and what happens between.

A slot is a place in the decode batch; when its response ends, the next one of the queue takes it.
Letters: R data shards of the mesh, s slots of each and k of them refilled in a call, w prompts of
each that are prefilled at once, n rows of results, C capacity of a response's cache. In the decode
batch slots are [P' G']: rows of G' responses that read one prompt cache in place, where all
responses have a slot (P' = R·w, G' = G); else each slot has a prompt cache of its own, G' = 1.

All slots write their keys at one common index, `cursor`, that runs round a ring of C places, so
that the write is one slice, in place. A response of length t owns the last t places.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from alphamed_jax.model.masks import ring_mask, valid_mask
from alphamed_jax.model.mesh import constrain
from alphamed_jax.rl.distribution import Sampling, draw
from alphamed_jax.rl.language_model import Caches, LanguageModel


class PromptCache(NamedTuple):
    """Keys and values of prompts per layer, [P K Tp H] each."""

    caches: Caches
    lengths: Int[Array, "P"]


class Prefilled(NamedTuple):
    """Prompts that wait for their responses to get a slot."""

    prompts: PromptCache
    last: Float[Array, "P D"]
    """Hidden state of each prompt's last token."""


class Requests(NamedTuple):
    """The responses that slots take up, up to k of each data shard."""

    slot: Int[Array, "R k"]
    """The slot that takes it up; s: none does."""
    prompt: Int[Array, "R k"]
    """Index among the prompts of the data shard."""
    row: Int[Array, "R k"]
    """Row of the results that it is written to."""
    sequence: Int[Array, "R k"]
    limit: Int[Array, "R k"]
    """Longest length."""
    greedy: Bool[Array, "R k"]
    """Whether each token is the likeliest, instead of drawn."""


class Slots(NamedTuple):
    """What each slot is working on."""

    row: Int[Array, "R s"]
    """Row of the results; n: none."""
    sequence: Int[Array, "R s"]
    limit: Int[Array, "R s"]
    greedy: Bool[Array, "R s"]
    length: Int[Array, "R s"]
    """Tokens sampled, the last one not yet in the cache."""
    stopped: Bool[Array, "R s"]
    last: Int[Array, "R s"]


class Responses(NamedTuple):
    """Results, in rows of each data shard."""

    tokens: Int[Array, "R n T"]
    logprobs: Float[Array, "R n T"]
    lengths: Int[Array, "R n"]
    finished: Bool[Array, "R n"]


class DecodeState(NamedTuple):
    """State of the decode loop."""

    slots: Slots
    cursor: Int[Array, ""]
    """Place in the ring where the last tokens' keys will be written."""
    caches: Caches
    """Own keys and values per layer, [P'·G' K C H] each."""
    results: Responses
    steps: Int[Array, ""]
    busy: Int[Array, ""]
    """Sum over steps of the slots that were active."""


class LoopExit(NamedTuple):
    """When the loop returns to the host, besides when all slots are done or a cache is full."""

    waiting: Int[Array, "R"]
    """Responses of each data shard that have no slot yet."""
    refill: Int[Array, ""]
    """Return once so many slots are free for waiting responses."""
    few: Int[Array, ""]
    """Return once no data shard has more than so many active slots."""


@jax.jit
def active(slots: Slots) -> Bool[Array, "R s"]:
    """Slots whose response goes on."""
    return ~slots.stopped & (slots.length < slots.limit)


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

    def widened(x):
        return jnp.pad(x, [(0, 0), (0, 0), (0, width - x.shape[2]), (0, 0)])

    return Prefilled(PromptCache(jax.tree.map(widened, caches), lengths), last)


@functools.partial(jax.jit, donate_argnames="kept")
def merge_prefilled(kept: Prefilled, new: Prefilled, fresh: Bool[Array, "P"]) -> Prefilled:
    """The prompts of `new` where `fresh`, of `kept` elsewhere."""
    return jax.tree.map(
        lambda a, b: jnp.where(fresh.reshape(-1, *[1] * (a.ndim - 1)), b, a), kept, new
    )


def _split(x: Shaped[Array, "B ..."], data_shards: int) -> Shaped[Array, "R m ..."]:
    """The leading axis cut into the data shards' parts."""
    return x.reshape(data_shards, x.shape[0] // data_shards, *x.shape[1:])


def _take(
    x: Shaped[Array, "R m ..."], index: Int[Array, "R k"], *axes: str | None
) -> Shaped[Array, "R k ..."]:
    """Elements `index` of each data shard's; `axes` are the logical ones of an element."""
    taken = jax.vmap(lambda shard, i: shard[i])(x, index)
    return constrain(taken, "batch", None, *axes, *(None,) * (taken.ndim - 2 - len(axes)))


def _put(
    x: Shaped[Array, "R m ..."], index: Int[Array, "R k"], new: Shaped[Array, "R k ..."]
) -> Shaped[Array, "R m ..."]:
    """Write elements `index` of each data shard's; an index beyond the last writes nothing."""
    return jax.vmap(lambda shard, i, v: shard.at[i].set(v, mode="drop"))(x, index, new)


def _take_caches(x: Shaped[Array, "B K S H"], index: Int[Array, "R s"]) -> Array:
    """Caches `index` of each data shard's, [R·s K S H]."""
    taken = _take(_split(x, index.shape[0]), index, "kv_heads")
    return constrain(jax.lax.collapse(taken, 0, 2), "batch", "kv_heads", None, None)


@jax.jit
def expand_prompt_cache(prompts: PromptCache, index: Int[Array, "R s"]) -> PromptCache:
    """A copy of its prompt's cache for each slot; `index` counts within the data shard."""
    lengths = _take(_split(prompts.lengths, index.shape[0]), index)
    caches = jax.tree.map(lambda x: _take_caches(x, index), prompts.caches)
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
        taken = _take(_split(source, data_shards), prompt, "kv_heads")
        filled = _put(_split(cache, data_shards), slot, taken)
        return constrain(filled.reshape(cache.shape), "batch", "kv_heads", None, None)

    lengths = _take(_split(prefilled.lengths, data_shards), prompt)
    return PromptCache(
        jax.tree.map(put, prompts.caches, prefilled.caches),
        _put(_split(prompts.lengths, data_shards), slot, lengths).reshape(-1),
    )


def _caches(model: LanguageModel, slots: int, capacity: int) -> Caches:
    blank = jnp.zeros(model.cache_shape(slots, capacity), model.dtype)

    def layers():
        return tuple(
            constrain(blank, "batch", "kv_heads", None, None) for _ in range(model.num_layers)
        )

    return Caches(layers(), layers())


@functools.partial(jax.jit, static_argnames=("model", "slots", "width"))
def empty_prompt_cache(model: LanguageModel, *, slots: int, width: int) -> PromptCache:
    """Room for a prompt of `width` tokens beside each slot."""
    lengths = constrain(jnp.ones(slots, jnp.int32), "batch")
    return PromptCache(_caches(model, slots, width), lengths)


@functools.partial(
    jax.jit, static_argnames=("model", "data_shards", "slots", "rows", "length", "capacity")
)
def init_decode_state(
    model: LanguageModel, *, data_shards: int, slots: int, rows: int, length: int, capacity: int
) -> DecodeState:
    """A state in which all slots are free.

    Args:
      slots: of each data shard, and so the `rows` of the results.
      length: of the longest response.
      capacity: of the caches.
    """

    def filled(shape, dtype=jnp.int32, value: Any = 0):
        shape = (data_shards, *shape)
        return constrain(jnp.full(shape, value, dtype), "batch", *(None,) * (len(shape) - 1))

    return DecodeState(
        slots=Slots(
            row=filled((slots,), value=rows),
            sequence=filled((slots,)),
            limit=filled((slots,)),
            greedy=filled((slots,), bool),
            length=filled((slots,)),
            stopped=filled((slots,), bool),
            last=filled((slots,)),
        ),
        cursor=jnp.int32(0),
        caches=_caches(model, data_shards * slots, capacity),
        results=Responses(
            tokens=filled((rows, length)),
            logprobs=filled((rows, length), jnp.float32),
            lengths=filled((rows,)),
            finished=filled((rows,), bool),
        ),
        steps=jnp.int32(0),
        busy=jnp.int32(0),
    )


def _sample(
    model: LanguageModel,
    weights: Any,
    hidden: Float[Array, "*B D"],
    keys: Key[Array, "R m"],
    tokens_before: Int[Array, "R m"],
    greedy: Bool[Array, "R m"],
    sampling: Sampling,
) -> tuple[Int[Array, "R m"], Float[Array, "R m"]]:
    """Token and log-probability of each response, from hidden states [R m D] or [P' G' D].

    The noise of token t is `fold_in(fold_in(key, sequence id), t)`.
    """
    logits, vocabulary_first = model.logits(weights, hidden.reshape(-1, hidden.shape[-1]))
    noise = jax.vmap(jax.random.fold_in)(keys.reshape(-1), tokens_before.reshape(-1))
    token, logprob = draw(noise, logits, sampling, greedy.reshape(-1), vocabulary_first)
    return token.reshape(keys.shape).astype(jnp.int32), logprob.reshape(keys.shape)


def _keys(key: Key[Array, ""], sequence: Int[Array, "R m"]) -> Key[Array, "R m"]:
    return jax.vmap(jax.vmap(lambda i: jax.random.fold_in(key, i)))(sequence)


def _write(
    results: Responses,
    row: Int[Array, "R m"],
    place: Int[Array, "R m"],
    token: Int[Array, "R m"],
    logprob: Float[Array, "R m"],
) -> Responses:
    """Write a token of each row at `place`; beyond the end nothing is written."""

    def put(buffer, value):
        return jax.vmap(lambda b, r, at, v: b.at[r, at].set(v, mode="drop"))(
            buffer, row, place, value
        )

    return results._replace(
        tokens=put(results.tokens, token), logprobs=put(results.logprobs, logprob)
    )


@functools.partial(jax.jit, static_argnames=("model", "sampling"), donate_argnames="state")
def refill(
    model: LanguageModel,
    weights: Any,
    last: Float[Array, "P D"],
    state: DecodeState,
    requests: Requests,
    stop_ids: Int[Array, "stops"],
    key: Key[Array, ""],
    *,
    sampling: Sampling,
) -> DecodeState:
    """Give free slots their next response, and draw its first token from the prompt's end.

    Args:
      last: hidden state of each prompt's last token.
    """
    slot = requests.slot
    hidden = _take(_split(last, len(slot)), requests.prompt)
    before = jnp.zeros_like(slot)
    keys = _keys(key, requests.sequence)
    token, logprob = _sample(model, weights, hidden, keys, before, requests.greedy, sampling)
    wanted = (slot < state.slots.row.shape[1]) & (requests.limit > 0)
    new = Slots(
        row=requests.row,
        sequence=requests.sequence,
        limit=requests.limit,
        greedy=requests.greedy,
        length=wanted.astype(jnp.int32),
        stopped=wanted & jnp.isin(token, stop_ids),
        last=token,
    )
    place = jnp.where(wanted, 0, state.results.tokens.shape[-1])
    return state._replace(
        slots=jax.tree.map(lambda old, value: _put(old, slot, value), state.slots, new),
        results=_write(state.results, requests.row, place, token, logprob),
    )


@functools.partial(jax.jit, static_argnames=("model", "sampling"), donate_argnames="state")
def decode(
    model: LanguageModel,
    weights: Any,
    prompts: PromptCache,
    state: DecodeState,
    until: LoopExit,
    stop_ids: Int[Array, "stops"],
    key: Key[Array, ""],
    *,
    sampling: Sampling,
) -> DecodeState:
    """Sample a token in every active slot, again and again until `until` says otherwise.

    Returns also once a response is longer than the caches: then `grow_cache`.

    `prompts` holds the cache of each row of slots [P'], read in place by all slots of that row.
    """
    rows = prompts.lengths.shape[0]
    shape = rows, state.slots.row.size // rows
    capacity, length = state.caches.keys[0].shape[2], state.results.tokens.shape[-1]
    keys = _keys(key, state.slots.sequence)
    prompt_mask = valid_mask(prompts.lengths, prompts.caches.keys[0].shape[2])

    def going_on(state):
        working = active(state.slots)
        busy = working.sum(axis=1)
        free = jnp.minimum(working.shape[1] - busy, until.waiting).sum()
        longest = jnp.where(working, state.slots.length, 0).max()
        return (busy.max() > until.few) & (free < until.refill) & (longest <= capacity)

    def step(state):
        slots, working = state.slots, active(state.slots)
        hidden, caches = model.decode_step(
            weights,
            slots.last.reshape(shape),
            prompts.lengths[:, None] + slots.length.reshape(shape) - 1,
            prompts.caches,
            prompt_mask,
            state.caches,
            ring_mask(state.cursor, slots.length.reshape(-1), capacity),
            state.cursor,
        )
        token, logprob = _sample(model, weights, hidden, keys, slots.length, slots.greedy, sampling)
        place = jnp.where(working, slots.length, length)
        return state._replace(
            slots=slots._replace(
                length=slots.length + working,
                stopped=slots.stopped | (working & jnp.isin(token, stop_ids)),
                last=jnp.where(working, token, slots.last),
            ),
            caches=caches,
            results=_write(state.results, slots.row, place, token, logprob),
            cursor=(state.cursor + 1) % capacity,
            steps=state.steps + 1,
            busy=state.busy + working.sum(),
        )

    state = jax.lax.while_loop(going_on, step, state)
    slots, results = state.slots, state.results
    return state._replace(
        results=results._replace(
            lengths=_put(results.lengths, slots.row, slots.length),
            finished=_put(results.finished, slots.row, slots.stopped),
        )
    )


@functools.partial(jax.jit, static_argnames="capacity")
def grow_cache(state: DecodeState, *, capacity: int) -> DecodeState:
    """The same state with longer caches: the ring is cut open at its oldest place."""
    former = state.caches.keys[0].shape[2]

    def longer(cache):
        opened = jnp.roll(cache, -state.cursor, axis=2)
        return jnp.pad(opened, [(0, 0), (0, 0), (0, capacity - former), (0, 0)])

    return state._replace(caches=jax.tree.map(longer, state.caches), cursor=jnp.int32(former))


@jax.jit
def compact_slots(state: DecodeState, kept: Int[Array, "R s"]) -> DecodeState:
    """The same state with only the slots `kept` of each data shard, each beside its own prompt."""
    return state._replace(
        slots=jax.tree.map(lambda x: _take(x, kept), state.slots),
        caches=jax.tree.map(lambda x: _take_caches(x, kept), state.caches),
    )


@jax.jit
def take_responses(results: Responses, rows: Int[Array, "R k"]) -> Responses:
    """The rows of each data shard, whole on every device, for the host to read."""
    taken = jax.tree.map(lambda x: _take(x, rows), results)
    return jax.tree.map(lambda x: constrain(x, *(None,) * x.ndim), taken)
