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
from alphamed_jax.model.mesh import constrain, data_shards, device_put_global, mesh_name
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.trajectories import Trajectories


class Packing(NamedTuple):
    """Where the responses of a prompt group lie in its n rows of T tokens, one after another.

    Without it every response has a row of its own.
    """

    source: Int[Array, "*M P n T"]
    """Which token lies there: response of the group · T + place in it; -1: none."""
    starts: Int[Array, "*M P G"]
    """Where each response starts: row · T + place in the row."""


class GroupBatch(NamedTuple):
    """M micro-batches of P prompt groups: a prompt and G responses to it, all or a part of them."""

    prompt_tokens: Int[Array, "*M P Tp"]
    prompt_lengths: Int[Array, "*M P"]
    tokens: Int[Array, "*M P G T"]
    lengths: Int[Array, "*M P G"]
    """0 on rows that only fill the shape."""
    advantages: Float[Array, "*M P G"]
    sampler_logprobs: Float[Array, "*M P G T"]
    packing: Packing | None = None
    old_logprobs: Float[Array, "*M P G T"] | None = None
    """None: the policy being trained is the one that sampled."""
    reference_logprobs: Float[Array, "*M P G T"] | None = None


class BatchPlan(NamedTuple):
    """The micro-batches of one update."""

    prompts: Int[np.ndarray, "M P"]
    """Index of each prompt group's prompt; -1 fills the shape."""
    responses: Int[np.ndarray, "M P G"]
    """Row of each response of a prompt group; -1 fills the shape."""
    starts: Int[np.ndarray, "M P G"]
    """Where each response starts, as in `Packing`."""
    rows: int
    """Packed rows of a prompt group."""
    packed: bool
    """Whether any row holds more than one response."""
    count: int
    """Micro-batches in use; M is the number a batch of effective groups needs."""
    prompt_width: int
    width: int
    tokens: int
    """Response tokens of the whole batch, those of ineffective groups included."""
    sequences: int


def check_micro_batch(micro_batch: int, mesh: Any, own: bool = False) -> None:
    """Refuse micro-batches of fewer rows than the mesh has data shards, before anything is loaded.

    All other sizes that a mesh does not divide are filled up or kept whole on each device, but for
    heads (see `mesh.check_heads`).

    Args:
      own: whether the update has this mesh for itself, for the error.

    Raises:
      UserError: there are fewer.
    """
    if micro_batch < (shards := data_shards(mesh)):
        flag = "--update.mesh" if own else "--mesh"
        raise UserError(
            f"update.micro_batch ({micro_batch}) is below the {shards} data shards of {flag} "
            f"{mesh_name(mesh)}: each needs a sequence; raise it to a multiple of {shards}."
        )


def row_counts(group_size: int, micro_batch: int, shards: int) -> list[int]:
    """Numbers of rows that a prompt group may have, largest first: few, as each may be a program.

    A data shard's part of `micro_batch` rows, or as many as a group can need, and a half and a
    quarter of that. Without the half realistic lengths would need 2 to 7 % more tokens.

    Raises:
      ValueError: fewer rows than data shards.
    """
    share = micro_batch // shards
    if share < 1:
        raise ValueError(
            f"micro_batch {micro_batch} is below the {shards} data shards of the mesh."
        )
    most = max(d for d in range(1, min(group_size, share) + 1) if group_size % d == 0)
    return [most // part for part in (1, 2, 4) if most % part == 0]


def row_width(needed: int, longest: int) -> int:
    """Tokens of a row: of the few widths there are for responses up to `longest`, the least.

    Bucketed `longest`, and each a quarter of the one before. As short responses share a row,
    a wide one is filled just as well; steps of a quarter only matter where all are short.
    """
    width = bucket(longest)
    while width // 4 >= needed and width > 16:
        width = max(width // 4, 16)
    return width


def pack_rows(lengths: Int[np.ndarray, "G"], width: int) -> list[list[int]]:
    """Put responses into as few rows of `width` as first-fit, longest first, finds."""
    rows: list[list[int]] = []
    room: list[int] = []
    for response in np.argsort(-lengths, kind="stable"):
        length = int(lengths[response])
        row = next((i for i, free in enumerate(room) if free >= length), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(int(response))
        room[row] -= length
    return rows


def plan_batch(
    prompt_lengths: Int[np.ndarray, "P"],
    lengths: Int[np.ndarray, "P G"],
    advantages: Float[np.ndarray, "P G"],
    *,
    micro_batch: int,
    data_shards: int,
    only_effective: bool,
    longest: int | None = None,
    prompt_width: int | None = None,
    pack: bool = True,
    share_prompts: bool = True,
) -> BatchPlan:
    """Choose the responses that enter the forward pass, and where they lie in it.

    With `only_effective` a group whose advantages are all zero is left out: its gradient is
    exactly zero. Its tokens and sequences still count in the divisors. A group's responses are
    packed into rows, and its rows into prompt groups that share one forward pass of the prompt;
    of the numbers of rows a prompt group may have, that with the least tokens to compute is taken.

    Args:
      micro_batch: rows in memory at once, over all data shards.
      longest, prompt_width: the longest response that there may be, and the tokens that prompts
        are padded to; the same at each step, so that the steps share their programs. None: what
        this batch needs.
      pack, share_prompts: False to measure what each saves.
    """
    prompts, group = lengths.shape
    micro_batch = min(micro_batch, -(-prompts // data_shards) * data_shards * group)
    chosen = np.arange(prompts)
    if only_effective:
        chosen = chosen[np.any(advantages != 0, axis=1)]
    width = row_width(int(lengths[chosen].max(initial=1)), longest or int(lengths.max()))
    prompt_width = prompt_width or bucket(int(prompt_lengths[chosen].max(initial=1)))
    filled = [pack_rows(lengths[p], width) if pack else [[g] for g in range(group)] for p in chosen]

    def micro_batches(rows, groups):
        """Prompt groups of a micro-batch, and micro-batches for those needing so many rows."""
        prompt_groups = data_shards * max(micro_batch // data_shards // rows, 1)
        return prompt_groups, -(-sum(-(-need // rows) for need in groups) // prompt_groups)

    def cost(rows):
        prompt_groups, count = micro_batches(rows, map(len, filled))
        return count * prompt_groups * (prompt_width + rows * width)

    counts = row_counts(group, micro_batch, data_shards) if share_prompts else [1]
    rows = min(counts, key=cost)
    prompt_groups, count = micro_batches(rows, map(len, filled))
    _, most = micro_batches(rows, [group] * prompts)
    packed = any(len(row) > 1 for needed in filled for row in needed)
    segments = group if packed else rows

    group_prompts = np.full(most * prompt_groups, -1, np.int32)
    responses = np.full((most * prompt_groups, segments), -1, np.int32)
    starts = np.zeros((most * prompt_groups, segments), np.int32)
    prompt_group = 0
    for p, needed in zip(chosen, filled, strict=True):
        for first in range(0, len(needed), rows):
            group_prompts[prompt_group], segment = p, 0
            for row, inside in enumerate(needed[first : first + rows]):
                begin = row * width
                for response in inside:
                    responses[prompt_group, segment], starts[prompt_group, segment] = (
                        p * group + response,
                        begin,
                    )
                    begin += int(lengths[p, response])
                    segment += 1
            prompt_group += 1
    return BatchPlan(
        prompts=group_prompts.reshape(most, prompt_groups),
        responses=responses.reshape(most, prompt_groups, segments),
        starts=starts.reshape(most, prompt_groups, segments),
        rows=rows,
        packed=packed,
        count=count,
        prompt_width=prompt_width,
        width=width,
        tokens=int(lengths.sum()),
        sequences=lengths.size,
    )


def packed_sources(plan: BatchPlan, lengths: Int[np.ndarray, "B"]) -> Int[np.ndarray, "M P n T"]:
    """Which token lies where, as `Packing.source` says it."""
    micros, prompt_groups = plan.prompts.shape
    source = np.full((micros * prompt_groups, plan.rows * plan.width), -1, np.int32)
    segments = plan.responses.shape[-1]
    flat = (plan.responses.reshape(-1, segments), plan.starts.reshape(-1, segments))
    for number, (responses, starts) in enumerate(zip(*flat, strict=True)):
        for segment, (row, start) in enumerate(zip(responses, starts, strict=True)):
            if row >= 0:
                length, first = int(lengths[row]), segment * plan.width
                source[number, start : start + length] = np.arange(first, first + length)
    return source.reshape(micros, prompt_groups, plan.rows, plan.width)


@functools.partial(jax.jit, static_argnames=("prompt_width", "width"))
def _gather(
    trajectories: Trajectories,
    advantages: Float[Array, "B"],
    prompt_groups: Int[Array, "M P"],
    segments: Int[Array, "M P G"],
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

    used = segments >= 0
    return GroupBatch(
        prompt_tokens=take(fit(trajectories.prompt_tokens, prompt_width), prompt_groups),
        prompt_lengths=take(trajectories.prompt_lengths, prompt_groups),
        tokens=take(fit(trajectories.tokens, width), segments),
        lengths=jnp.where(used, take(trajectories.lengths, segments), 0),
        advantages=jnp.where(used, take(advantages, segments), 0.0),
        sampler_logprobs=take(fit(trajectories.logprobs, width), segments),
    )


def gather(
    trajectories: Trajectories,
    lengths: Int[np.ndarray, "P G"],
    advantages: Float[np.ndarray, "P G"],
    plan: BatchPlan,
    mesh: Mesh,
) -> GroupBatch:
    """Bring the planned prompt groups together as [M P G T], split over the data shards."""
    batch = _gather(
        trajectories,
        device_put_global(advantages.reshape(-1).astype(np.float32), (None,), mesh),
        device_put_global(plan.prompts, (None, None), mesh),
        device_put_global(plan.responses, (None, None, None), mesh),
        prompt_width=plan.prompt_width,
        width=plan.width,
    )
    if not plan.packed:
        return batch
    split = (None, "batch", None)
    source = packed_sources(plan, lengths.reshape(-1))
    packing = Packing(
        device_put_global(source, (*split, None), mesh),
        device_put_global(plan.starts, split, mesh),
    )
    return batch._replace(packing=packing)
