"""The jitted decode loop over slots, and what happens between its runs.

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
from jaxtyping import Array, Bool, Float, Int, Key

from alphamed_jax.model.cache import lengthened
from alphamed_jax.model.masks import ring_mask, valid_mask
from alphamed_jax.model.mesh import constrain
from alphamed_jax.rl.distribution import Sampling, draw
from alphamed_jax.rl.language_model import Caches, LanguageModel
from alphamed_jax.rl.prompt_cache import PromptCache
from alphamed_jax.rl.shards import empty_caches, put_rows, split_shards, take_caches, take_rows


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


_SIZES = ("data_shards", "slots", "rows", "length", "capacity", "prompt_width")


@functools.partial(jax.jit, static_argnames=("model", *_SIZES))
def init_decode_state(
    model: LanguageModel,
    *,
    data_shards: int,
    slots: int,
    rows: int,
    length: int,
    capacity: int,
    prompt_width: int | None,
) -> tuple[DecodeState, PromptCache | None]:
    """A state in which all slots are free, and room for a prompt beside each slot.

    Args:
      slots: of each data shard, and so the `rows` of the results.
      length: of the longest response.
      capacity: of the caches.
      prompt_width: tokens of a prompt that has a slot's own cache; None: slots share caches.
    """

    def filled(shape, dtype=jnp.int32, value: Any = 0):
        shape = (data_shards, *shape)
        return constrain(jnp.full(shape, value, dtype), "batch", *(None,) * (len(shape) - 1))

    state = DecodeState(
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
        caches=empty_caches(model, data_shards * slots, capacity),
        results=Responses(
            tokens=filled((rows, length)),
            logprobs=filled((rows, length), jnp.float32),
            lengths=filled((rows,)),
            finished=filled((rows,), bool),
        ),
        steps=jnp.int32(0),
        busy=jnp.int32(0),
    )
    if prompt_width is None:
        return state, None
    lengths = constrain(jnp.ones(data_shards * slots, jnp.int32), "batch")
    return state, PromptCache(empty_caches(model, data_shards * slots, prompt_width), lengths)


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
    hidden = take_rows(split_shards(last, len(slot)), requests.prompt)
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
        slots=jax.tree.map(lambda old, value: put_rows(old, slot, value), state.slots, new),
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
    capacity, length = state.caches.capacity, state.results.tokens.shape[-1]
    keys = _keys(key, state.slots.sequence)
    prompt_mask = valid_mask(prompts.lengths, prompts.caches.capacity)

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
            lengths=put_rows(results.lengths, slots.row, slots.length),
            finished=put_rows(results.finished, slots.row, slots.stopped),
        )
    )


@functools.partial(jax.jit, static_argnames="capacity")
def grow_cache(state: DecodeState, *, capacity: int) -> DecodeState:
    """The same state with longer caches: the ring is cut open at its oldest place."""
    opened = jax.tree.map(lambda x: jnp.roll(x, -state.cursor, axis=2), state.caches)
    return state._replace(
        caches=lengthened(opened, capacity), cursor=jnp.int32(state.caches.capacity)
    )


@jax.jit
def compact_slots(state: DecodeState, kept: Int[Array, "R s"]) -> DecodeState:
    """The same state with only the slots `kept` of each data shard, each beside its own prompt."""
    return state._replace(
        slots=jax.tree.map(lambda x: take_rows(x, kept), state.slots),
        caches=jax.tree.map(lambda x: take_caches(x, kept), state.caches),
    )


@jax.jit
def take_responses(results: Responses, rows: Int[Array, "R k"]) -> Responses:
    """The rows of each data shard, whole on every device, for the host to read."""
    taken = jax.tree.map(lambda x: take_rows(x, rows), results)
    return jax.tree.map(lambda x: constrain(x, *(None,) * x.ndim), taken)
