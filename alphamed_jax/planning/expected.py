"""The time of a step for an expected length of responses, from what its phases cost."""

import heapq
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from alphamed_jax.compiled import closed_form
from alphamed_jax.compiled.arguments import Case, batch_of, slots_of
from alphamed_jax.compiled.topology import Chip
from alphamed_jax.config import Config
from alphamed_jax.model.mesh import data_shards
from alphamed_jax.planning.phase import PhaseCost
from alphamed_jax.planning.roofline import Amount, Seconds, seconds
from alphamed_jax.rl import batch
from alphamed_jax.rl.buckets import capacities
from alphamed_jax.rl.slots import REFILL_SHARE

ASSUMPTIONS = (
    "Times are rooflines: peak rates, products and memory at once, communication before or after "
    "(`hidden`: at once too). What is measured on devices is longer.",
    "Lengths of a group's responses are spread evenly about their mean, as far as the longest "
    "allowed; the longest decides the decode steps.",
    "Prompts are as long as --prompt-tokens says; a share of --effective groups is trained on.",
    "Not counted: the host, evaluation, checkpoints, and further rounds of rollout.max_rounds.",
)


class Expected(NamedTuple):
    """A step with responses of a mean length."""

    mean: int
    longest: int
    decode_steps: int
    micro_batches: int
    phases: dict[str, Seconds]
    work: dict[str, Amount]
    """Of a device in each phase."""
    collectives: dict[str, float]
    """Bytes that collectives give a device in the step, by kind."""
    step: float
    """Seconds; communication hides behind nothing."""
    hidden: float
    """Seconds if it hides as far as it can."""
    generated_per_second: float
    epoch: float
    """Seconds; a step takes `rollout.prompts` questions."""


def spread(mean: int, most: int, group: int) -> Int[np.ndarray, "G"]:
    """Lengths of a group's responses: evenly about `mean`, within 1 and `most`."""
    half = min(mean - 1, most - mean)
    places = (2 * np.arange(group) + 1) / group - 1  # within (-1, 1), symmetric
    return np.rint(mean + half * places).astype(int)


def decode_steps(lengths: Int[np.ndarray, "n"], slots: int) -> int:
    """Steps until the responses of a data row are done, `slots` at a time, each in its turn."""
    free = [0] * min(slots, len(lengths))
    for length in lengths.tolist():
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def decode_loop(
    case: Case, cost: PhaseCost, chip: Chip, steps: int, longest: int
) -> tuple[Seconds, Amount]:
    """Time and work of decoding: caches grow with the longest response, and are read whole.

    The program was compiled for the longest caches; shorter ones save what they are shorter by.
    """
    model, work = case.model, case.work
    rows, tensor = data_shards(case.mesh), case.mesh.shape["tensor"]
    width = case.objective.compute.dtype.itemsize
    place = closed_form.cache_bytes(model, slots_of(case) // rows, 1, tensor, width)
    largest = work.capacity or work.response
    total, amount = seconds(cost.base, chip), cost.base
    done, sizes = 0, capacities(work.response)
    for capacity in sizes:
        last = capacity >= longest or capacity == sizes[-1]
        here = (steps if last else min(capacity, steps)) - done
        saved = place * max(largest - capacity, 0)
        turn = cost.turn._replace(traffic=max(cost.turn.traffic - saved, 0))
        total, amount = _sum(total, seconds(turn, chip), here), amount.plus(turn, here)
        done += here
        if last:
            break
    return total, amount


def _sum(a: Seconds, b: Seconds, times: float | int = 1) -> Seconds:
    return Seconds(*(x + times * y for x, y in zip(a, b, strict=True)))


def trained(case: Case, config: Config, effective: float, lengths: Int[np.ndarray, "G"]):
    """Micro-batches of one update, and their tokens over those of as many compiled ones."""
    prompts = max(case.work.prompts // case.work.mini_batches, 1)
    advantages = np.zeros((prompts, len(lengths)), np.float32)
    advantages[: math.ceil(effective * prompts)] = 1
    planned = batch.plan(
        np.full(prompts, case.work.prompt_width),
        np.tile(lengths, (prompts, 1)),
        advantages,
        micro_batch=case.work.micro_batch,
        rows=data_shards(case.mesh),
        skip_constant=config.update.skip_constant_groups and config.loss.kl_coef == 0,
        longest=case.work.response,
        prompt_width=case.work.prompt_width,
    )
    largest = batch_of(case)
    _, units, _, width = largest.tokens.shape
    lanes = largest.lanes.source.shape[-2] if largest.lanes else largest.tokens.shape[-2]
    compiled = units * (largest.prompt_tokens.shape[-1] + lanes * width)
    here = planned.prompts.shape[1] * (planned.prompt_width + planned.lanes * planned.width)
    return planned.count, here / compiled


def expect(
    case: Case,
    config: Config,
    costs: dict[str, PhaseCost],
    chip: Chip,
    mean: int,
    *,
    effective: float,
    questions: int,
) -> Expected:
    """The step with responses of a mean length (tokens)."""
    work, rows = case.work, data_shards(case.mesh)
    lengths = spread(mean, work.response, work.group)
    longest = int(lengths.max())
    responses = work.prompts * work.group
    slots = slots_of(case) // rows
    steps = decode_steps(np.tile(lengths, work.prompts // rows), slots)
    refills = 1
    if work.slots is not None:
        at_once = max(slots // REFILL_SHARE, 1)
        refills += math.ceil((responses // rows - slots) / at_once)
    grown = sum(capacity < longest for capacity in capacities(work.response))
    count, share = trained(case, config, effective, lengths)
    scorings = (config.loss.kl_coef > 0) + work.old_logprobs
    times = {
        "layer_layout": case.model.num_layers,
        "refill": refills,
        "fan_out": refills,
        "grow": grown,
    }
    updates = {"update": config.updates_per_step, "score": scorings * config.update.mini_batches}
    found: dict[str, Seconds] = {}
    work_of: dict[str, Amount] = {}
    moved: dict[str, float] = {}
    for name, cost in costs.items():
        repeated = updates.get(name, times.get(name, 1))
        turns = steps if name == "decode" else count * share
        if name == "decode":
            found[name], work_of[name] = decode_loop(case, cost, chip, steps, longest)
        else:
            work_of[name] = Amount().plus(cost.base.plus(cost.turn, turns), repeated)
            found[name] = seconds(work_of[name], chip)
        for kind in cost.collectives | cost.turn_collectives:
            size = cost.collectives.get(kind, 0) + turns * cost.turn_collectives.get(kind, 0)
            moved[kind] = moved.get(kind, 0) + repeated * size
    step = sum(s.apart for s in found.values())
    generated = config.rollout.prompts * work.group * int(lengths.sum()) / len(lengths)
    return Expected(
        mean=mean,
        longest=longest,
        decode_steps=steps,
        micro_batches=count * config.updates_per_step,
        phases=found,
        work=work_of,
        collectives=moved,
        step=step,
        hidden=sum(s.together for s in found.values()),
        generated_per_second=generated / step,
        epoch=math.ceil(questions / config.rollout.prompts) * step,
    )
