"""Micro-batches: which responses enter the forward pass, and in which shapes.

Planned on the host from lengths and advantages, gathered on the devices.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alphamed_jax.model.mesh import constrain, mesh_of, place
from alphamed_jax.rl.rollout import Trajectories, bucket


class GroupBatch(NamedTuple):
    """M micro-batches of P prompts with G responses each (a group, or a part of one)."""

    prompt_tokens: Int[Array, "*M P Tp"]
    prompt_lengths: Int[Array, "*M P"]
    tokens: Int[Array, "*M P G T"]
    lengths: Int[Array, "*M P G"]
    """0 on rows that only fill the shape."""
    advantages: Float[Array, "*M P G"]
    sampler_logprobs: Float[Array, "*M P G T"]
    old_logprobs: Float[Array, "*M P G T"] | None = None
    """None: the policy being trained is the one that sampled."""
    reference_logprobs: Float[Array, "*M P G T"] | None = None


class Plan(NamedTuple):
    """The micro-batches of one update."""

    units: Int[np.ndarray, "M P"]
    """Index of each unit; -1 fills the shape. A unit is `unit_size` responses of one group."""
    count: int
    """Micro-batches in use; M is the number a batch full of signal needs."""
    unit_size: int
    prompt_width: int
    width: int
    tokens: int
    """Response tokens of the whole batch, those without signal included."""
    sequences: int


def unit_shape(group_size: int, micro_batch: int, rows: int) -> tuple[int, int]:
    """Cut `micro_batch` sequences over `rows` data rows of the mesh into units.

    Returns (responses per unit, units per micro-batch): a unit is a whole group where a group
    fits a row's share, else the largest even part of one.

    Raises:
      ValueError: fewer sequences than rows.
    """
    share = micro_batch // rows
    if share < 1:
        raise ValueError(f"micro_batch {micro_batch} is below the {rows} data rows of the mesh.")
    size = max(d for d in range(1, min(group_size, share) + 1) if group_size % d == 0)
    return size, rows * (share // size)


def plan(
    prompt_lengths: Int[np.ndarray, "P"],
    lengths: Int[np.ndarray, "P G"],
    advantages: Float[np.ndarray, "P G"],
    *,
    micro_batch: int,
    rows: int,
    skip_constant: bool,
) -> Plan:
    """Choose the units that enter the forward pass, longest first, and their shapes.

    With `skip_constant` a group whose advantages are all zero is left out: its gradient is
    exactly zero. Its tokens and sequences still count in the divisors.
    """
    prompts, group = lengths.shape
    size, per_micro = unit_shape(group, min(micro_batch, -(-prompts // rows) * rows * group), rows)
    parts = group // size
    chosen = np.arange(prompts * parts)
    if skip_constant:
        chosen = chosen[np.repeat(np.any(advantages != 0, axis=1), parts)]
    unit_lengths = lengths.reshape(-1, size).max(axis=1)
    chosen = chosen[np.argsort(-unit_lengths[chosen], kind="stable")]
    units = np.full((-(-prompts * parts // per_micro), per_micro), -1, np.int32)
    units.reshape(-1)[: len(chosen)] = chosen
    return Plan(
        units=units,
        count=-(-len(chosen) // per_micro),
        unit_size=size,
        prompt_width=bucket(int(prompt_lengths[chosen // parts].max(initial=1))),
        width=bucket(int(unit_lengths[chosen].max(initial=1))),
        tokens=int(lengths.sum()),
        sequences=lengths.size,
    )


@functools.partial(jax.jit, static_argnames=("unit_size", "prompt_width", "width"))
def _gather(
    trajectories: Trajectories,
    advantages: Float[Array, "B"],
    units: Int[Array, "M P"],
    *,
    unit_size: int,
    prompt_width: int,
    width: int,
) -> GroupBatch:
    def fit(x, size):
        """Cut or zero-pad the last axis."""
        x = x[..., :size]
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])])

    def take(x):
        rows = x[jnp.maximum(units, 0)]
        return constrain(rows, None, "batch", *(None,) * (rows.ndim - 2))

    def responses(x):
        return take(x.reshape(-1, unit_size, *x.shape[1:]))

    units_per_prompt = trajectories.tokens.shape[0] // (
        unit_size * trajectories.prompt_lengths.shape[0]
    )

    def prompts(x):
        return take(jnp.repeat(x, units_per_prompt, axis=0))

    used = (units >= 0)[..., None]
    return GroupBatch(
        prompt_tokens=prompts(fit(trajectories.prompt_tokens, prompt_width)),
        prompt_lengths=prompts(trajectories.prompt_lengths),
        tokens=responses(fit(trajectories.tokens, width)),
        lengths=jnp.where(used, responses(trajectories.lengths), 0),
        advantages=jnp.where(used, responses(advantages), 0.0),
        sampler_logprobs=responses(fit(trajectories.logprobs, width)),
    )


def gather(
    trajectories: Trajectories, advantages: Float[np.ndarray, "P G"], layout: Plan
) -> GroupBatch:
    """Bring the planned units together as [M P G T], split over the data rows of the mesh."""
    mesh = mesh_of(trajectories)
    with jax.set_mesh(mesh):
        return _gather(
            trajectories,
            place(advantages.reshape(-1).astype(np.float32), (None,), mesh),
            place(layout.units, (None, None), mesh),
            unit_size=layout.unit_size,
            prompt_width=layout.prompt_width,
            width=layout.width,
        )
