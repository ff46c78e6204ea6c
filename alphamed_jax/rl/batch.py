"""Micro-batches: which responses enter the forward pass, and in which shapes.

Planned on the host from lengths and advantages, gathered on the devices.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from alphamed_jax.errors import UserError
from alphamed_jax.model.mesh import constrain, data_shards, device_put_global
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.trajectories import Trajectories


class Lanes(NamedTuple):
    """Where the responses of a unit lie in its n lanes of T tokens, one after another.

    Without it every response has a lane of its own.
    """

    source: Int[Array, "*M P n T"]
    """Which token lies there: response in the unit · T + place in the response; -1: none."""
    starts: Int[Array, "*M P G"]
    """Where each response starts: lane · T + place in the lane."""


class GroupBatch(NamedTuple):
    """M micro-batches of P units: a prompt and G responses to it (a group, or a part of one)."""

    prompt_tokens: Int[Array, "*M P Tp"]
    prompt_lengths: Int[Array, "*M P"]
    tokens: Int[Array, "*M P G T"]
    lengths: Int[Array, "*M P G"]
    """0 on rows that only fill the shape."""
    advantages: Float[Array, "*M P G"]
    sampler_logprobs: Float[Array, "*M P G T"]
    lanes: Lanes | None = None
    old_logprobs: Float[Array, "*M P G T"] | None = None
    """None: the policy being trained is the one that sampled."""
    reference_logprobs: Float[Array, "*M P G T"] | None = None


class Plan(NamedTuple):
    """The micro-batches of one update."""

    prompts: Int[np.ndarray, "M P"]
    """Index of each unit's prompt; -1 fills the shape."""
    responses: Int[np.ndarray, "M P G"]
    """Row of each response of a unit; -1 fills the shape."""
    starts: Int[np.ndarray, "M P G"]
    """Where each response starts, as in `Lanes`."""
    lanes: int
    """Lanes of a unit."""
    packed: bool
    """Whether any lane holds more than one response."""
    count: int
    """Micro-batches in use; M is the number a batch full of signal needs."""
    prompt_width: int
    width: int
    tokens: int
    """Response tokens of the whole batch, those without signal included."""
    sequences: int


def check_micro_batch(micro_batch: int, mesh: Any) -> None:
    """Refuse micro-batches of fewer lanes than the mesh has data rows, before anything is loaded.

    All other sizes that a mesh does not divide are filled up or kept whole on each device, but for
    heads (see `mesh.check_heads`).

    Raises:
      UserError: there are fewer.
    """
    if micro_batch < (rows := data_shards(mesh)):
        sizes = list(mesh.shape.values())
        name = "x".join(map(str, sizes[1:] if sizes[0] == 1 else sizes))
        raise UserError(
            f"update.micro_batch ({micro_batch}) is below the {rows} data rows of --mesh {name}: "
            f"each needs a sequence; raise it to a multiple of {rows}."
        )


def lane_counts(group_size: int, micro_batch: int, rows: int) -> list[int]:
    """Numbers of lanes that a unit may have, largest first: few, as each may be a program.

    A data row's share of `micro_batch` lanes, or as many as a group can need, and a half and a
    quarter of that. Without the half realistic lengths would need 2 to 7 % more tokens.

    Raises:
      ValueError: fewer lanes than data rows.
    """
    share = micro_batch // rows
    if share < 1:
        raise ValueError(f"micro_batch {micro_batch} is below the {rows} data rows of the mesh.")
    most = max(d for d in range(1, min(group_size, share) + 1) if group_size % d == 0)
    return [most // part for part in (1, 2, 4) if most % part == 0]


def lane_width(needed: int, longest: int) -> int:
    """Tokens of a lane: of the few widths there are for responses up to `longest`, the least.

    Bucketed `longest`, and each a quarter of the one before. As short responses share a lane,
    a wide one is filled just as well; steps of a quarter only matter where all are short.
    """
    width = bucket(longest)
    while width // 4 >= needed and width > 16:
        width = max(width // 4, 16)
    return width


def fill_lanes(lengths: Int[np.ndarray, "G"], width: int) -> list[list[int]]:
    """Put responses into as few lanes of `width` as first-fit, longest first, finds."""
    lanes: list[list[int]] = []
    room: list[int] = []
    for response in np.argsort(-lengths, kind="stable"):
        length = int(lengths[response])
        lane = next((i for i, free in enumerate(room) if free >= length), len(lanes))
        if lane == len(lanes):
            lanes.append([])
            room.append(width)
        lanes[lane].append(int(response))
        room[lane] -= length
    return lanes


def plan(
    prompt_lengths: Int[np.ndarray, "P"],
    lengths: Int[np.ndarray, "P G"],
    advantages: Float[np.ndarray, "P G"],
    *,
    micro_batch: int,
    rows: int,
    skip_constant: bool,
    longest: int | None = None,
    prompt_width: int | None = None,
    pack: bool = True,
    share_prompts: bool = True,
) -> Plan:
    """Choose the responses that enter the forward pass, and where they lie in it.

    With `skip_constant` a group whose advantages are all zero is left out: its gradient is
    exactly zero. Its tokens and sequences still count in the divisors. A group's responses are
    packed into lanes, and its lanes into units that share one forward pass of the prompt; among
    the numbers of lanes a unit may have, the one with the least tokens to compute is taken.

    Args:
      micro_batch: lanes in memory at once, over all `rows` data rows.
      longest, prompt_width: the longest response that there may be, and the tokens that prompts
        are padded to; the same at each step, so that the steps share their programs. None: what
        this batch needs.
      pack, share_prompts: False to measure what each saves.
    """
    prompts, group = lengths.shape
    micro_batch = min(micro_batch, -(-prompts // rows) * rows * group)
    chosen = np.arange(prompts)
    if skip_constant:
        chosen = chosen[np.any(advantages != 0, axis=1)]
    width = lane_width(int(lengths[chosen].max(initial=1)), longest or int(lengths.max()))
    prompt_width = prompt_width or bucket(int(prompt_lengths[chosen].max(initial=1)))
    filled = [
        fill_lanes(lengths[p], width) if pack else [[g] for g in range(group)] for p in chosen
    ]

    def micro_batches(lanes, groups):
        """Units of a micro-batch, and micro-batches for groups that need so many lanes each."""
        units = rows * max(micro_batch // rows // lanes, 1)
        return units, -(-sum(-(-need // lanes) for need in groups) // units)

    def cost(lanes):
        units, count = micro_batches(lanes, map(len, filled))
        return count * units * (prompt_width + lanes * width)

    counts = lane_counts(group, micro_batch, rows) if share_prompts else [1]
    lanes = min(counts, key=cost)
    units, count = micro_batches(lanes, map(len, filled))
    _, most = micro_batches(lanes, [group] * prompts)
    packed = any(len(lane) > 1 for needed in filled for lane in needed)
    members = group if packed else lanes

    unit_prompts = np.full(most * units, -1, np.int32)
    responses = np.full((most * units, members), -1, np.int32)
    starts = np.zeros((most * units, members), np.int32)
    unit = 0
    for p, needed in zip(chosen, filled, strict=True):
        for first in range(0, len(needed), lanes):
            unit_prompts[unit], member = p, 0
            for lane, inside in enumerate(needed[first : first + lanes]):
                begin = lane * width
                for response in inside:
                    responses[unit, member], starts[unit, member] = p * group + response, begin
                    begin += int(lengths[p, response])
                    member += 1
            unit += 1
    return Plan(
        prompts=unit_prompts.reshape(most, units),
        responses=responses.reshape(most, units, members),
        starts=starts.reshape(most, units, members),
        lanes=lanes,
        packed=packed,
        count=count,
        prompt_width=prompt_width,
        width=width,
        tokens=int(lengths.sum()),
        sequences=lengths.size,
    )


def lane_sources(layout: Plan, lengths: Int[np.ndarray, "B"]) -> Int[np.ndarray, "M P n T"]:
    """Which token lies where, as `Lanes.source` says it."""
    micros, units = layout.prompts.shape
    source = np.full((micros * units, layout.lanes * layout.width), -1, np.int32)
    members = layout.responses.shape[-1]
    flat = (layout.responses.reshape(-1, members), layout.starts.reshape(-1, members))
    for unit, (rows, starts) in enumerate(zip(*flat, strict=True)):
        for member, (row, start) in enumerate(zip(rows, starts, strict=True)):
            if row >= 0:
                length, first = int(lengths[row]), member * layout.width
                source[unit, start : start + length] = np.arange(first, first + length)
    return source.reshape(micros, units, layout.lanes, layout.width)


@functools.partial(jax.jit, static_argnames=("prompt_width", "width"))
def _gather(
    trajectories: Trajectories,
    advantages: Float[Array, "B"],
    units: Int[Array, "M P"],
    members: Int[Array, "M P G"],
    *,
    prompt_width: int,
    width: int,
) -> GroupBatch:
    """Bring the planned responses together, micro-batch by micro-batch."""

    def fit(x, size):
        """Cut or zero-pad the last axis."""
        x = x[..., :size]
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])])

    def take(x, index):
        rows = x[jnp.maximum(index, 0)]
        return constrain(rows, None, "batch", *(None,) * (rows.ndim - 2))

    used = members >= 0
    return GroupBatch(
        prompt_tokens=take(fit(trajectories.prompt_tokens, prompt_width), units),
        prompt_lengths=take(trajectories.prompt_lengths, units),
        tokens=take(fit(trajectories.tokens, width), members),
        lengths=jnp.where(used, take(trajectories.lengths, members), 0),
        advantages=jnp.where(used, take(advantages, members), 0.0),
        sampler_logprobs=take(fit(trajectories.logprobs, width), members),
    )


def gather(
    trajectories: Trajectories,
    lengths: Int[np.ndarray, "P G"],
    advantages: Float[np.ndarray, "P G"],
    layout: Plan,
    mesh: Mesh,
) -> GroupBatch:
    """Bring the planned units together as [M P G T], split over the data rows of the mesh."""
    batch = _gather(
        trajectories,
        device_put_global(advantages.reshape(-1).astype(np.float32), (None,), mesh),
        device_put_global(layout.prompts, (None, None), mesh),
        device_put_global(layout.responses, (None, None, None), mesh),
        prompt_width=layout.prompt_width,
        width=layout.width,
    )
    if not layout.packed:
        return batch
    split = (None, "batch", None)
    source = lane_sources(layout, lengths.reshape(-1))
    lanes = Lanes(
        device_put_global(source, (*split, None), mesh),
        device_put_global(layout.starts, split, mesh),
    )
    return batch._replace(lanes=lanes)
