"""The jitted parts of a rollout: prefill, the decode loop over slots, and what happens between.

A slot is a place in the decode batch; when its response ends, the next one of the queue takes it.
Letters: R data rows of the mesh, s slots and n responses on each of them, P·G = R·n responses,
C capacity of a response's cache. In the decode batch, slots are [P' G']: rows of G' responses
that read one prompt cache, where all responses have a slot (P' = P, G' = G), else G' = 1.

All slots write their keys at one common index, `cursor`, that runs round a ring of C places, so
that the write is one slice, in place. A response of length t owns the last t places.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from alphamed_jax.model import network
from alphamed_jax.model.attention import DENSE, Attention, causal_attend
from alphamed_jax.model.dense import prefix_decode, to_cache
from alphamed_jax.model.masks import ring_mask, valid_mask
from alphamed_jax.model.mesh import constrain
from alphamed_jax.model.network import ModelConfig, Params
from alphamed_jax.model.numerics import exact
from alphamed_jax.rl.decode_weights import DecodeWeights
from alphamed_jax.rl.distribution import Sampling, draw


class Prompts(NamedTuple):
    """Keys and values of prompts per layer, [P K Tp H] each."""

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    lengths: Int[Array, "P"]


class Rows(NamedTuple):
    """The responses to be sampled, of each data row its own."""

    prompt: Int[Array, "R n"]
    """Index of the prompt among those of the data row."""
    sequence: Int[Array, "R n"]
    limit: Int[Array, "R n"]
    """Longest length; 0: not sampled at all."""
    greedy: Bool[Array, "R n"]
    """Whether each token is the likeliest, instead of drawn."""


class Slots(NamedTuple):
    """What each slot is working on."""

    row: Int[Array, "R s"]
    sequence: Int[Array, "R s"]
    limit: Int[Array, "R s"]
    greedy: Bool[Array, "R s"]
    length: Int[Array, "R s"]
    """Tokens sampled, the last one not yet in the cache."""
    stopped: Bool[Array, "R s"]
    last: Int[Array, "R s"]


class Decoding(NamedTuple):
    """State of the decode loop."""

    slots: Slots
    cursor: Int[Array, ""]
    """Place in the ring where the last tokens' keys will be written."""
    keys: tuple[Array, ...]
    """Own keys and values per layer, [P'·G' K C H] each. A slot has one axis here: with two, one
    of them of length 1, XLA for CPUs would write the cache a second time for the reader."""
    values: tuple[Array, ...]
    tokens: Int[Array, "R n T"]
    logprobs: Float[Array, "R n T"]
    lengths: Int[Array, "R n"]
    finished: Bool[Array, "R n"]
    steps: Int[Array, ""]
    busy: Int[Array, ""]
    """Sum over steps of the slots that were at work."""


class Pause(NamedTuple):
    """When the loop returns to the host, besides when all slots are done or a cache is full."""

    waiting: Int[Array, "R"]
    """Responses of each data row that have no slot yet."""
    refill: Int[Array, ""]
    """Return once so many slots are free for waiting responses."""
    few: Int[Array, ""]
    """Return once no data row has more than so many slots at work."""


@jax.jit
def at_work(slots: Slots) -> Bool[Array, "R s"]:
    """Slots whose response goes on."""
    return ~slots.stopped & (slots.length < slots.limit)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def prefill(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "P Tp"],
    lengths: Int[Array, "P"],
    dtype: Any,
    how: Attention = DENSE,
) -> tuple[Prompts, Float[Array, "P D"]]:
    """Forward the prompts once, each on its own row, padded on the right.

    Returns their caches, and the hidden state of each prompt's last token.
    """
    prompts, width = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(width), (prompts, width))
    x = network.embed(config, params, tokens, dtype)
    x, kv = network.run_layers(config, params, x, positions, causal_attend(how), keep_kv=True)
    assert kv is not None
    last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]

    def per_layer(stacked):
        rows = to_cache(stacked)
        return tuple(constrain(row, "batch", "kv_heads", None, None) for row in rows)

    return Prompts(per_layer(kv[0]), per_layer(kv[1]), lengths), last


def _take(
    x: Shaped[Array, "R m ..."], index: Int[Array, "R s"], *axes: str | None
) -> Shaped[Array, "R s ..."]:
    """Elements `index` of each data row's share; `axes` are the logical ones of an element."""
    taken = jax.vmap(lambda share, i: share[i])(x, index)
    return constrain(taken, "batch", None, *axes, *(None,) * (taken.ndim - 2 - len(axes)))


def _take_caches(x: Shaped[Array, "B K S H"], index: Int[Array, "R s"]) -> Array:
    """Caches `index` of each data row's share, [R·s K S H]."""
    taken = _take(_split(x, index.shape[0]), index, "kv_heads")
    return constrain(jax.lax.collapse(taken, 0, 2), "batch", "kv_heads", None, None)


def _split(x: Shaped[Array, "B ..."], data_shards: int) -> Shaped[Array, "R m ..."]:
    """The leading axis cut into the data rows' shares."""
    return x.reshape(data_shards, x.shape[0] // data_shards, *x.shape[1:])


@jax.jit
def fan_out(prompts: Prompts, index: Int[Array, "R s"]) -> Prompts:
    """A copy of its prompt's cache for each slot; `index` counts within the data row."""
    lengths = _take(_split(prompts.lengths, index.shape[0]), index)
    return Prompts(
        tuple(_take_caches(x, index) for x in prompts.keys),
        tuple(_take_caches(x, index) for x in prompts.values),
        lengths.reshape(-1),
    )


@functools.partial(jax.jit, static_argnames=("config", "group", "slots", "length", "capacity"))
def start(
    config: ModelConfig,
    like: Float[Array, "P D"],
    rows: Rows,
    *,
    group: int,
    slots: int,
    length: int,
    capacity: int,
) -> Decoding:
    """A state in which all slots are free; `like` gives the dtype of the caches."""
    data_shards, responses = rows.sequence.shape
    shape = (data_shards * slots, config.num_kv_heads, capacity, config.head_dim)

    def zeros(shape, dtype, *axes):
        return constrain(jnp.zeros(shape, dtype), "batch", *axes, *(None,) * (len(shape) - 1))

    def per_slot(dtype=jnp.int32):
        return zeros((data_shards, slots), dtype)

    def idle():
        return Slots(
            row=per_slot(),
            sequence=per_slot(),
            limit=per_slot(),
            greedy=per_slot(bool),
            length=per_slot(),
            stopped=per_slot(bool),
            last=per_slot(),
        )

    def cache():
        blank = jnp.zeros(shape, like.dtype)
        return tuple(
            constrain(blank, "batch", "kv_heads", None, None) for _ in range(config.num_layers)
        )

    kept = (data_shards, responses, length)
    return Decoding(
        slots=idle(),
        cursor=jnp.int32(0),
        keys=cache(),
        values=cache(),
        tokens=zeros(kept, jnp.int32),
        logprobs=zeros(kept, jnp.float32),
        lengths=zeros(kept[:2], jnp.int32),
        finished=zeros(kept[:2], bool),
        steps=jnp.int32(0),
        busy=jnp.int32(0),
    )


def _sample(
    config: ModelConfig,
    layout: DecodeWeights,
    x: Float[Array, "*B D"],
    keys: Key[Array, "R s"],
    tokens_before: Int[Array, "R s"],
    greedy: Bool[Array, "R s"],
    sampling: Sampling,
) -> tuple[Int[Array, "R s"], Float[Array, "R s"]]:
    """Token and log-probability of each slot, from hidden states [R s D] or [P' G' D].

    The noise of token t is `fold_in(fold_in(key, sequence id), t)`.
    """
    rows = x.reshape(-1, x.shape[-1])
    if layout.sharded:
        rows = constrain(rows, None, "embed")
    if layout.output_major:
        head = layout.weights["embed" if config.tie_embeddings else "head"]
        wide = {"preferred_element_type": jnp.float32, "precision": exact(rows.dtype)}
        logits = constrain(jnp.matmul(head, rows.T, **wide), "vocab", "batch")
    else:
        logits = constrain(network.unembed(config, layout.weights, rows), "batch", "vocab")
    noise = jax.vmap(jax.random.fold_in)(keys.reshape(-1), tokens_before.reshape(-1))
    greedy = greedy.reshape(-1)
    token, logprob = draw(noise, logits, sampling, greedy, vocabulary_first=layout.output_major)
    return token.reshape(keys.shape).astype(jnp.int32), logprob.reshape(keys.shape)


def _record(
    state: Decoding,
    where: Bool[Array, "R s"],
    token: Int[Array, "R s"],
    logprob: Float[Array, "R s"],
    stop_ids: Int[Array, "stops"],
) -> Decoding:
    """Append the sampled token to the responses of the slots in `where`."""
    slots, length = state.slots, state.tokens.shape[-1]
    place = jnp.where(where, slots.length, length)  # beyond the end: not written

    def put(buffer, value):
        return jax.vmap(lambda b, row, at, v: b.at[row, at].set(v, mode="drop"))(
            buffer, slots.row, place, value
        )

    return state._replace(
        tokens=put(state.tokens, token),
        logprobs=put(state.logprobs, logprob),
        slots=slots._replace(
            length=slots.length + where,
            stopped=slots.stopped | (where & jnp.isin(token, stop_ids)),
            last=jnp.where(where, token, slots.last),
        ),
    )


@functools.partial(jax.jit, static_argnames=("config", "sampling"), donate_argnames="state")
def refill(
    config: ModelConfig,
    layout: DecodeWeights,
    last: Float[Array, "P D"],
    rows: Rows,
    state: Decoding,
    assigned: Int[Array, "R s"],
    stop_ids: Int[Array, "stops"],
    key: Key[Array, ""],
    *,
    sampling: Sampling,
) -> Decoding:
    """Give free slots their next response, and draw its first token from the prompt's end.

    Args:
      last: hidden state of each prompt's last token.
      assigned: response that a slot takes up, -1 where it goes on with its own.
    """
    fresh = assigned >= 0
    taken = jnp.maximum(assigned, 0)
    old = state.slots
    slots = Slots(
        row=jnp.where(fresh, assigned, old.row),
        sequence=jnp.where(fresh, _take(rows.sequence, taken), old.sequence),
        limit=jnp.where(fresh, _take(rows.limit, taken), old.limit),
        greedy=jnp.where(fresh, _take(rows.greedy, taken), old.greedy),
        length=jnp.where(fresh, 0, old.length),
        stopped=~fresh & old.stopped,
        last=old.last,
    )
    x = _take(_split(last, len(assigned)), _take(rows.prompt, taken))
    keys = jax.vmap(jax.vmap(lambda i: jax.random.fold_in(key, i)))(slots.sequence)
    before = jnp.zeros_like(taken)
    token, logprob = _sample(config, layout, x, keys, before, slots.greedy, sampling)
    wanted = fresh & (slots.limit > 0)
    return _record(state._replace(slots=slots), wanted, token, logprob, stop_ids)


@functools.partial(jax.jit, static_argnames=("config", "sampling"), donate_argnames="state")
def decode(
    config: ModelConfig,
    layout: DecodeWeights,
    prompts: Prompts,
    state: Decoding,
    pause: Pause,
    stop_ids: Int[Array, "stops"],
    key: Key[Array, ""],
    *,
    sampling: Sampling,
) -> Decoding:
    """Sample a token in every slot at work, again and again until `pause` says otherwise.

    Returns also once a response is longer than the caches: then `grow` them.

    `prompts` holds the cache of each row of slots [P'], read in place by all slots of that row.
    """
    weights = layout.weights
    dtype = weights["embed"].dtype
    rows = prompts.keys[0].shape[0]
    shape = rows, state.slots.row.size // rows
    capacity = state.keys[0].shape[2]
    keys = jax.vmap(jax.vmap(lambda i: jax.random.fold_in(key, i)))(state.slots.sequence)
    prompt_mask = valid_mask(prompts.lengths, prompts.keys[0].shape[2])

    def going_on(state):
        working = at_work(state.slots)
        busy = working.sum(axis=1)
        free = jnp.minimum(working.shape[1] - busy, pause.waiting).sum()
        longest = jnp.where(working, state.slots.length, 0).max()
        return (busy.max() > pause.few) & (free < pause.refill) & (longest <= capacity)

    def step(state):
        slots, working = state.slots, at_work(state.slots)
        length = slots.length.reshape(shape)
        positions = (prompts.lengths[:, None] + length - 1)[..., None]
        rope = network.rope_table(config, positions)
        own_mask = ring_mask(state.cursor, slots.length.reshape(-1), capacity)
        x = network.embed(config, weights, slots.last.reshape(*shape, 1), dtype)
        if not layout.sharded:
            x = constrain(x, "batch", None, None, None)
        own_keys, own_values = list(state.keys), list(state.values)
        for i, layer_weights in enumerate(weights["layers"]):

            def attend(q, k, v, i=i):
                at = (0, 0, state.cursor, 0)
                k, v = (jax.lax.collapse(to_cache(x), 0, 2) for x in (k, v))
                own_keys[i] = jax.lax.dynamic_update_slice(own_keys[i], k, at)
                own_values[i] = jax.lax.dynamic_update_slice(own_values[i], v, at)
                mixed = prefix_decode(
                    q[:, :, 0],
                    prompts.keys[i],
                    prompts.values[i],
                    prompt_mask,
                    own_keys[i],
                    own_values[i],
                    own_mask,
                )
                return mixed[:, :, None]

            layer = network.layer(config, layer_weights)
            x, _ = layer(x, rope, attend, layout.output_major, layout.sharded)
        x = network.rms_norm(x[:, :, 0], weights["norm"], config.rms_norm_eps)
        token, logprob = _sample(config, layout, x, keys, slots.length, slots.greedy, sampling)
        state = state._replace(
            keys=tuple(own_keys),
            values=tuple(own_values),
            cursor=(state.cursor + 1) % capacity,
            steps=state.steps + 1,
            busy=state.busy + working.sum(),
        )
        return _record(state, working, token, logprob, stop_ids)

    state = jax.lax.while_loop(going_on, step, state)
    slots = state.slots
    put = jax.vmap(lambda b, row, v: b.at[row].set(v))
    return state._replace(
        lengths=put(state.lengths, slots.row, slots.length),
        finished=put(state.finished, slots.row, slots.stopped),
    )


@functools.partial(jax.jit, static_argnames="capacity")
def grow(state: Decoding, *, capacity: int) -> Decoding:
    """The same state with longer caches: the ring is cut open at its oldest place."""
    former = state.keys[0].shape[2]

    def longer(cache):
        opened = jnp.roll(cache, -state.cursor, axis=2)
        return jnp.pad(opened, [(0, 0), (0, 0), (0, capacity - former), (0, 0)])

    return state._replace(
        keys=tuple(map(longer, state.keys)),
        values=tuple(map(longer, state.values)),
        cursor=jnp.int32(former),
    )


@jax.jit
def keep(state: Decoding, kept: Int[Array, "R s"]) -> Decoding:
    """The same state with only the slots `kept` of each data row, each beside its own prompt."""
    return state._replace(
        slots=jax.tree.map(lambda x: _take(x, kept), state.slots),
        keys=tuple(_take_caches(x, kept) for x in state.keys),
        values=tuple(_take_caches(x, kept) for x in state.values),
    )
