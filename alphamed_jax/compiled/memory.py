"""What lies on a device while a program runs, from shapes and shardings: no program is compiled.

A phase's own peak is the compiler's. Here is what training keeps beside it, and what its arguments
are made of.
"""

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax

from alphamed_jax.compiled import arguments
from alphamed_jax.compiled.arguments import Case
from alphamed_jax.rl import update

# What the memory of each phase is made of: arguments of its program, then what lies beside them.
# After `rl.rollout.roll_out` and `rl.step.grpo_step`: the train state is always there, the weights
# for decoding during a rollout, the prompts' caches until its end.
_STATE = ("weights", "optimizer", "reference")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "layer_layout": ("layers",),
    "head_layout": ("ends",),
    "prefill": ("weights",),
    "fan_out": ("prompt_caches",),
    "refill": ("decode_weights", "caches", "records"),
    "decode": ("decode_weights", "slot_prompts", "caches", "records"),
    "grow": ("former_caches", "records"),
    "reward": ("tokens",),
    "score": ("scored", "batch"),
    "update": ("weights", "optimizer", "batch"),
}
BESIDE: dict[str, tuple[str, ...]] = {
    # Of the last layer: all others are made.
    "layer_layout": ("ends", "optimizer", "reference", "decode_weights"),
    "head_layout": ("layers", "optimizer", "reference", "decode_weights"),
    "prefill": ("optimizer", "reference", "decode_weights"),
    "fan_out": (*_STATE, "decode_weights", "caches", "records", "fanned_out"),
    "refill": (*_STATE, "prompt_caches", "fanned_out"),
    "decode": (*_STATE, "waiting_prompts"),
    "grow": (*_STATE, "decode_weights", "prompt_caches", "fanned_out"),
    "reward": (*_STATE, "records", "kept_layout"),
    "score": ("unscored", "optimizer", "records"),
    "update": ("reference", "records"),
    # Not a program: a checkpoint is written from a copy of the state, at the border of a step.
    "checkpoint": ("weights", "optimizer", "reference", "copy"),
}
# How the parts are shown.
GROUPS = {
    "weights": ("weights", "layers", "ends", "reference", "scored", "unscored"),
    "optimizer": ("optimizer",),
    "decode_weights": ("decode_weights", "kept_layout"),
    "caches": (
        "caches",
        "former_caches",
        "prompt_caches",
        "slot_prompts",
        "fanned_out",
        "waiting_prompts",
    ),
    "batch": ("records", "tokens", "batch"),
    "copy": ("copy",),
}


def device_bytes(tree: Any) -> int:
    """Bytes on one device of arrays that are known by shape, dtype and sharding."""

    def size(x: Any) -> int:
        shape = x.sharding.shard_shape(x.shape) if x.sharding is not None else x.shape
        return math.prod(shape) * x.dtype.itemsize

    return sum(size(x) for x in jax.tree.leaves(tree))


@functools.lru_cache(maxsize=16)
def sizes(case: Case, rounds: int = 1) -> Mapping[str, int]:
    """Bytes on a device of everything that may lie there; see `ARGUMENTS` and `BESIDE`.

    Args:
      rounds: as rollout.max_rounds; several keep the decoding weights until the step's end.
    """
    objective, work = case.objective, case.work
    state = update.abstract_state(objective, arguments.params(case))
    optimizer = device_bytes((state.opt_state, state.updates, state.skipped))
    weights = device_bytes(state.params)
    ends = device_bytes(arguments.ends(case))
    low = device_bytes(arguments.params(case, objective.compute.dtype))
    reference = low if objective.loss.kl_coef > 0 else 0
    layout = device_bytes(arguments.decode_weights(case))
    decoding = arguments.decoding(case)
    caches = device_bytes(decoding.caches)
    former = arguments.former_capacity(case)
    capacity = work.capacity or work.response
    prompts = device_bytes(arguments.prompt_caches(case, work.prompts))
    slots = arguments.slots_of(case)
    fanned = 0 if work.slots is None else device_bytes(arguments.prompt_caches(case, slots))
    rows = device_bytes(decoding._replace(caches=()))
    scored = reference if reference and not work.old_logprobs else weights
    known = {
        "weights": weights,
        "layers": weights - ends,
        "ends": ends,
        "optimizer": optimizer,
        "reference": reference,
        "decode_weights": layout,
        "kept_layout": layout if rounds > 1 else 0,
        "caches": caches,
        "former_caches": caches * (former or capacity) // capacity,
        "prompt_caches": prompts,
        "fanned_out": fanned,
        "slot_prompts": fanned or prompts,
        "waiting_prompts": prompts if fanned else 0,
        "records": rows,
        "tokens": rows // 2,
        "batch": device_bytes(arguments.batch_of(case)),
        "scored": scored,
        "unscored": weights + reference - scored,
        "copy": weights + optimizer,
    }
    return MappingProxyType(known)


def beside(case: Case, rounds: int = 1) -> dict[str, int]:
    """Bytes on a device during each phase that are not among its program's arguments."""
    known = sizes(case, rounds)
    return {phase: sum(known[part] for part in parts) for phase, parts in BESIDE.items()}


def parts(known: Mapping[str, int], phase: str) -> dict[str, int]:
    """Bytes of each kind (`GROUPS`) during a phase, before any temporary array."""
    there = (*ARGUMENTS.get(phase, ()), *BESIDE[phase])
    return {
        name: sum(known[part] for part in there if part in members)
        for name, members in GROUPS.items()
    }
