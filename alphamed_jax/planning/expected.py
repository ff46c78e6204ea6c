"""The time of a step for an expected length of responses, from what its programs cost."""

import heapq
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from alphamed_jax.compiled.topology import Chip
from alphamed_jax.compiled.work import Work
from alphamed_jax.config import Config
from alphamed_jax.planning.cost import Cost
from alphamed_jax.planning.roofline import Seconds, seconds
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Course, Program
from alphamed_jax.rl.slots import REFILL_SHARE, refill_width

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
    """Of each program, as often as the step runs it."""
    stages: dict[str, float]
    """Seconds of each stage (`Program.stage`); communication hides behind nothing."""
    work: dict[str, Work]
    """Of a device in each program."""
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
    """Steps until the responses of a data shard are done, `slots` at a time, each in its turn."""
    free = [0] * min(slots, len(lengths))
    for length in lengths.tolist():
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def in_open_loop(
    program: Program, step: PlannedStep, cost: Cost, chip: Chip, course: Course
) -> tuple[Seconds, Work, float]:
    """Time, work and iterations of one run of a program.

    It was compiled for the longest caches; iterations with shorter ones save some of its traffic.
    """
    time, work, count = seconds(cost.base, chip), cost.base, 0.0
    for some in program.iterations(step, course):
        traffic = max(cost.per_iteration.traffic - some.saved_traffic, 0)
        one = cost.per_iteration._replace(traffic=traffic)
        time, work = time.plus(seconds(one, chip), some.count), work.plus(one, some.count)
        count += some.count
    return time, work, count


def trained(
    step: PlannedStep, config: Config, effective: float, lengths: Int[np.ndarray, "G"]
) -> tuple[int, float]:
    """Micro-batches of one update, and their tokens over those of as many compiled ones."""
    prompts = step.mini_batch
    advantages = np.zeros((prompts, len(lengths)), np.float32)
    advantages[: math.ceil(effective * prompts)] = 1
    plan = step.batch_plan(np.tile(lengths, (prompts, 1)), advantages, config.only_effective)

    def tokens(of):
        return of.prompts.shape[1] * (of.prompt_width + of.rows * of.width)

    return plan.count, tokens(plan) / tokens(step.full_plan)


def course_of(step: PlannedStep, lengths: Int[np.ndarray, "G"], micro_batches: float) -> Course:
    """How the step goes where each group has responses of these lengths."""
    shards, slots = step.data_shards, step.slots // step.data_shards
    refills = 1
    if step.shape.slots is not None:
        # A call fills some of the slots, at the start as later.
        refills, at_once = -(-slots // refill_width(slots)), max(slots // REFILL_SHARE, 1)
        refills += math.ceil((step.responses // shards - slots) / at_once)
    steps = decode_steps(np.tile(lengths, step.shape.prompts // shards), slots)
    return Course(int(lengths.max()), steps, refills, micro_batches)


def expect(
    step: PlannedStep,
    config: Config,
    costs: dict[Program, Cost],
    chip: Chip,
    mean: int,
    *,
    effective: float,
    questions: int,
) -> Expected:
    """The step with responses of a mean length (tokens)."""
    lengths = spread(mean, step.shape.response, step.shape.group)
    count, share = trained(step, config, effective, lengths)
    course = course_of(step, lengths, count * share)
    times: dict[str, Seconds] = {}
    work_of: dict[str, Work] = {}
    stages: dict[str, float] = {}
    moved: dict[str, float] = {}
    hidden = 0.0
    for program, cost in costs.items():
        repeats = program.repeats(step, course)
        once, work, iterations = in_open_loop(program, step, cost, chip, course)
        time = Seconds().plus(once, repeats)
        times[program.name], work_of[program.name] = time, Work().plus(work, repeats)
        stages[program.stage] = stages.get(program.stage, 0) + time.serial
        hidden += time.overlapped
        for kind, size in cost.moved_by(iterations).items():
            moved[kind] = moved.get(kind, 0) + repeats * size
    total = sum(stages.values())
    group = step.shape.group
    generated = config.rollout.prompts * group * int(lengths.sum()) / len(lengths)
    return Expected(
        mean=mean,
        longest=course.longest,
        decode_steps=course.decode_steps,
        micro_batches=count * config.updates_per_step,
        phases=times,
        stages=stages,
        work=work_of,
        collectives=moved,
        step=total,
        hidden=hidden,
        generated_per_second=generated / total,
        epoch=math.ceil(questions / config.rollout.prompts) * total,
    )
