"""Rollout: each prompt is prefilled once, its G responses are decoded in slots, in jitted loops.

Row p·G + g is response g of prompt p. Every response has a sequence id of its own, and the
noise of its token t is `fold_in(fold_in(key, sequence id), t)`: what a row samples does not
depend on the rows beside it, nor on the slot it is decoded in, nor on the mesh.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from alphamed_jax.model.attention import DENSE, Attention
from alphamed_jax.model.mesh import data_shards, device_put_global, host_get, mesh_of
from alphamed_jax.model.network import ModelConfig, Params
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl.buckets import capacities, pad_prompts
from alphamed_jax.rl.decode import Decoding, Pause, Prompts, Rows, prefill
from alphamed_jax.rl.decode_weights import DecodeWeights, make_decode_weights
from alphamed_jax.rl.distribution import Sampling, absent_ids
from alphamed_jax.rl.trajectories import Trajectories

# Slots are refilled once an eighth of them is free: a refill costs about as much as a step, and
# with it about a sixteenth of them stands idle.
REFILL_SHARE = 8
# When the queue is empty and a quarter of the slots is at work, decoding goes on in so many; fewer
# than eight rows cost as much as eight.
SHRINK, FEWEST_SLOTS = 4, 8
# Rows per device up to which a CPU decodes faster from output-major weights.
OUTPUT_MAJOR_ROWS = 64


class Occupancy(NamedTuple):
    """How busy the slots were."""

    steps: int
    """Decode steps."""
    busy: float
    """Share of slot-steps at which a response went on, over the whole rollout."""
    busy_while_waiting: float | None
    """The same while responses waited for a slot; None where all had one from the start."""


class Usage(NamedTuple):
    """Counts that `Occupancy` is made of, added up from loop to loop."""

    steps: int = 0
    busy: int = 0
    slot_steps: int = 0
    waiting_busy: int = 0
    waiting_slot_steps: int = 0

    def after(self, steps: int, busy: int, slots: int, waiting: bool) -> "Usage":
        """After a loop over `slots`; `steps` and `busy` count from the start of the rollout."""
        here, at_work = (steps - self.steps) * slots, busy - self.busy
        return Usage(
            steps,
            busy,
            self.slot_steps + here,
            self.waiting_busy + at_work * waiting,
            self.waiting_slot_steps + here * waiting,
        )

    def summary(self) -> Occupancy:
        """Shares of the slot-steps."""
        queue = self.waiting_slot_steps
        return Occupancy(
            self.steps,
            self.busy / max(self.slot_steps, 1),
            self.waiting_busy / queue if queue else None,
        )


def slots_here(prompts: int, group_size: int, slots: int | None, shares: int) -> int:
    """Responses that each of `shares` data rows decodes at once; see `generate`."""
    responses = -(-prompts // shares) * group_size
    return responses if slots is None else min(responses, max(1, slots // shares))


def layout_for(
    config: ModelConfig, params: Params, here: int, dtype: Any = None, sharded: bool = False
) -> DecodeWeights:
    """Decoding weights on the mesh that `params` live on.

    Args:
      here: responses that each data row decodes at once, as `slots_here` counts them.
      sharded: leave them split over `fsdp`, where a copy per data row would not fit.
    """
    mesh = mesh_of(params)
    few = here <= OUTPUT_MAJOR_ROWS
    with jax.set_mesh(mesh):
        return make_decode_weights(
            config,
            params,
            dtype or params["embed"].dtype,
            output_major=few and not sharded and mesh.devices.flat[0].platform == "cpu",
            sharded=sharded,
        )


def generate(
    config: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stop_ids: Sequence[int],
    key: Key[Array, ""],
    first_sequence: int = 0,
    dtype: Any = None,
    attention: Attention = DENSE,
    layout: DecodeWeights | None = None,
    slots: int | None = None,
    sharded: bool = False,
    prompt_width: int = 0,
    known: Bool[np.ndarray, "V"] | None = None,
) -> Trajectories:
    """Sample `group_size` responses to each prompt on the mesh that `params` live on.

    Args:
      prompts: token ids, at least one each.
      stop_ids: any of them ends a response.
      key: fixed for a run; `first_sequence` advances by the number of rows each step.
      first_sequence: sequence id of row 0; row i has `first_sequence + i`.
      temperature: 0 takes the likeliest token each time.
      dtype: compute dtype; None takes that of `params`.
      attention: of the prompts; decoding has its own.
      layout: weights from `layout_for`, to share them between calls.
      slots: responses decoded at once over the whole mesh, at least one per data row; as one
        ends the next takes its place. None: all of them.
      sharded: without a `layout`, make one whose weights stay split over `fsdp`.
      prompt_width: pad prompts to this at least, so that batches share their programs.
      known: which ids have a token, as `data.tokenizer.known_tokens` says; the others are never
        sampled. None: all have one.

    Returns:
      Trajectories of the prompts given. Prompts are filled up to a whole number for each data row
      of the mesh; those that fill up sample nothing and are left off.

    Raises:
      ValueError: no prompts, or an empty one.
    """
    return roll_out(
        config,
        params,
        prompts,
        group_size=group_size,
        max_new_tokens=max_new_tokens,
        sampling=Sampling(temperature or 1.0, top_p, top_k, absent_ids(known)),
        stop_ids=stop_ids,
        key=key,
        first_sequence=first_sequence,
        dtype=dtype,
        attention=attention,
        layout=layout,
        slots=slots,
        sharded=sharded,
        prompt_width=prompt_width,
        greedy=None if temperature else np.ones(len(prompts) * group_size, bool),
    )[0]


def roll_out(
    config: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int,
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: Sequence[int],
    key: Key[Array, ""],
    first_sequence: int = 0,
    dtype: Any = None,
    attention: Attention = DENSE,
    layout: DecodeWeights | None = None,
    slots: int | None = None,
    sharded: bool = False,
    prompt_width: int = 0,
    refill: bool = True,
    limits: Int[np.ndarray, "B"] | None = None,
    sequences: Int[np.ndarray, "B"] | None = None,
    greedy: Bool[np.ndarray, "B"] | None = None,
) -> tuple[Trajectories, Occupancy]:
    """`generate` with each row's own sequence id and way to draw, and how busy the slots were.

    Args:
      refill: False waits until all slots are free before it starts the next responses; for
        measuring what refilling saves.
      limits: longest length of each response; 0: it is not sampled and takes no slot's time; None:
        `max_new_tokens`.
      sequences: sequence id of each response; None: they count on from `first_sequence`.
      greedy: responses that take the likeliest token each time; None: none does.

    Raises:
      ValueError: no prompts, or an empty one.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("generate needs at least one prompt, and no prompt may be empty.")
    mesh = mesh_of(params)
    shares = data_shards(mesh)
    tokens, lengths = pad_prompts(prompts, shares, prompt_width)
    responses = len(tokens) // shares * group_size  # of a data row
    here = slots_here(len(prompts), group_size, slots, shares)
    count = len(prompts) * group_size
    # Responses to prompts that only fill up have a limit of 0.
    limits = np.full(count, max_new_tokens) if limits is None else limits
    longest = np.zeros((shares, responses), np.int32)
    longest.flat[:count] = np.minimum(limits, max_new_tokens)
    if sequences is None:
        sequences = first_sequence + np.arange(count)
    greedy = np.zeros(count, bool) if greedy is None else greedy
    dtype = dtype or params["embed"].dtype
    layout = layout or layout_for(config, params, here, dtype, sharded)
    with jax.set_mesh(mesh):
        prompt_tokens = device_put_global(tokens, ("batch", None), mesh)
        prompt_lengths = device_put_global(lengths, ("batch",), mesh)
        prefilled, last = prefill(config, params, prompt_tokens, prompt_lengths, dtype, attention)

        def per_row(x):
            full = np.zeros((shares, responses), bool if x.dtype == bool else np.int32)
            full.flat[: x.size] = x
            return device_put_global(full, ("batch", None), mesh)

        rows = Rows(
            prompt=per_row(np.tile(np.arange(responses) // group_size, shares)),
            sequence=per_row(sequences),
            limit=per_row(longest.reshape(-1)),
            greedy=per_row(greedy),
        )
        state, occupancy = _decode_all(
            config,
            layout,
            prefilled,
            last,
            rows,
            longest > 0,
            slots=here,
            refill=refill,
            length=max_new_tokens,
            stop_ids=device_put_global(np.asarray(stop_ids, np.int32), (None,), mesh),
            key=key,
            sampling=sampling,
            mesh=mesh,
        )
        found = (state.tokens, state.lengths, state.logprobs, state.finished)
        flat = [jax.lax.collapse(x, 0, 2)[:count] for x in found]
        kept = slice(0, len(prompts))
        return Trajectories(prompt_tokens[kept], prompt_lengths[kept], *flat), occupancy


def _decode_all(
    config: ModelConfig,
    layout: DecodeWeights,
    prefilled: Prompts,
    last: Float[Array, "P D"],
    rows: Rows,
    wanted: Bool[np.ndarray, "R n"],
    *,
    slots: int,
    refill: bool,
    length: int,
    stop_ids: Int[Array, "stops"],
    key: Key[Array, ""],
    sampling: Sampling,
    mesh: Mesh,
) -> tuple[Decoding, Occupancy]:
    """Decode the `wanted` ones of `rows`, `slots` of each data row at a time.

    The host decides only between loops, from which slots are at work; that is the same in every
    process.
    """
    shares, responses = rows.sequence.shape
    group = responses * shares // len(last)
    shared = slots == responses  # all responses of a prompt stand side by side
    sizes = capacities(length)
    state = engine.start(
        config,
        last,
        rows,
        group=group if shared else 1,
        slots=slots,
        length=length,
        capacity=sizes.pop(0),
    )
    prompts = prefilled
    working = np.zeros((shares, slots), bool)
    row = np.zeros((shares, slots), np.int32)
    line, ends = in_line(wanted, slots)
    queued = np.zeros(shares, np.int32)  # responses of each data row that have had a slot
    usage = Usage()
    while True:
        places = next_places(working, queued, ends)
        queued = np.maximum(queued, places.max(axis=1) + 1)
        assigned = np.where(places >= 0, np.take_along_axis(line, np.maximum(places, 0), 1), -1)
        moved = not shared
        if (assigned >= 0).any():
            on_mesh = device_put_global(assigned.astype(np.int32), ("batch", None), mesh)
            state = engine.refill(
                config, layout, last, rows, state, on_mesh, stop_ids, key, sampling=sampling
            )
            row = np.where(assigned >= 0, assigned, row)
        elif not working.any():
            return state, usage.summary()
        elif working.sum(axis=1).max() <= fewer_slots(working.shape[1]):
            # Those at work first, then others to fill up.
            kept = np.argsort(~working, axis=1, kind="stable")[:, : fewer_slots(working.shape[1])]
            state = engine.keep(
                state, device_put_global(kept.astype(np.int32), ("batch", None), mesh)
            )
            row, shared, moved = np.take_along_axis(row, kept, axis=1), False, True
        else:
            state, moved = engine.grow(state, capacity=sizes.pop(0)), False
        if moved:
            prompts = engine.fan_out(
                prefilled, device_put_global(row // group, ("batch", None), mesh)
            )
        waiting = ends - queued
        enough = min(row.size // REFILL_SHARE, waiting.sum()) if refill else row.size
        pause = Pause(
            waiting=jnp.asarray(waiting),
            refill=jnp.int32(max(enough, 1)),
            few=jnp.int32(0 if waiting.any() else fewer_slots(row.shape[1])),
        )
        state = engine.decode(
            config, layout, prompts, state, pause, stop_ids, key, sampling=sampling
        )
        counts = (engine.at_work(state.slots), state.steps, state.busy)
        working, steps, busy = host_get(counts, mesh)
        usage = usage.after(int(steps), int(busy), row.size, waiting=bool(waiting.any()))


def in_line(
    wanted: Bool[np.ndarray, "R n"], slots: int
) -> tuple[Int[np.ndarray, "R n"], Int[np.ndarray, "R"]]:
    """The order in which responses get a slot, and how many of each data row do.

    Those that are not wanted come last, and only as far as there are slots at the start, in which
    they end at once. Where all have a slot from the start, each has that of its own place.
    """
    responses = wanted.shape[1]
    order = np.argsort(~wanted, axis=1, kind="stable")
    if slots == responses:
        order = np.broadcast_to(np.arange(responses), wanted.shape)
    return order, np.maximum(wanted.sum(axis=1), slots).astype(np.int32)


def next_places(
    working: Bool[np.ndarray, "R s"], queued: Int[np.ndarray, "R"], ends: Int[np.ndarray, "R"]
) -> Int[np.ndarray, "R s"]:
    """The place in line of the response that each free slot takes up next; -1: none."""
    next_one = queued[:, None] + np.cumsum(~working, axis=1) - 1
    return np.where(~working & (next_one < ends[:, None]), next_one, -1).astype(np.int32)


def fewer_slots(slots: int) -> int:
    """Number of slots of a data row to go on with once so few are at work; 0: never."""
    return slots // SHRINK if slots // SHRINK >= FEWEST_SLOTS else 0
