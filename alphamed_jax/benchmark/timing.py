"""Timed steps: what each phase takes, and what each saving saves."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from alphamed_jax.benchmark.setup import Batch
from alphamed_jax.config import Config
from alphamed_jax.rl.advantages import group_advantages
from alphamed_jax.rl.batch import BatchPlan, plan_batch
from alphamed_jax.rl.mini_batches import update_policy
from alphamed_jax.rl.policy import Policy, make_sampler
from alphamed_jax.rl.requests import Request
from alphamed_jax.rl.slots import Occupancy
from alphamed_jax.rl.step import score_rewards
from alphamed_jax.rl.trajectories import ScoredRollouts, Trajectories
from alphamed_jax.rl.update import TrainState
from alphamed_jax.runtime.compilation import ProgramCounter


class Timed(NamedTuple):
    """Seconds of a step."""

    rollout: float
    rest: float
    """Reward, advantages, planning and update."""
    occupancy: Occupancy
    programs: int = 0
    """Programs that were compiled in it."""

    @property
    def step(self) -> float:
        """All of it."""
        return self.rollout + self.rest


def rolled_out(
    policy: Policy, config: Config, params: Any, batch: Batch, step: int
) -> tuple[Trajectories, Occupancy]:
    """Responses of the batch, as `rl.step.sample` draws them, cut at the lengths it asks for."""
    sampler = make_sampler(policy, config)
    found = sampler.sample(sampler.load(params), groups_of(config, batch, step), policy.key)
    return jax.block_until_ready(found)


def groups_of(config: Config, batch: Batch, step: int) -> list[Request]:
    """What a step asks for."""
    size = config.rollout.group_size
    first = step * len(batch.limits)
    return [
        Request(
            question.token_ids,
            range(first + number * size, first + (number + 1) * size),
            batch.limits[number * size : (number + 1) * size].tolist(),
        )
        for number, question in enumerate(batch.questions)
    ]


def in_waves(
    policy: Policy, config: Config, params: Any, batch: Batch, step: int
) -> tuple[Any, Occupancy]:
    """The same without refilling: as many groups as slots hold, to the end, then the next ones.

    Returns the tokens, and how busy the slots were.
    """
    sampler = make_sampler(policy, config)
    weights, groups = sampler.load(params), groups_of(config, batch, step)
    slots = config.rollout.slots or len(batch.limits)
    size = max(slots // config.rollout.group_size, 1)
    waves = [
        sampler.sample(weights, groups[first : first + size], policy.key)
        for first in range(0, len(groups), size)
    ]
    jax.block_until_ready(waves)
    steps, slot_steps = (
        sum(getattr(usage, name) for _, usage in waves) for name in ("steps", "slot_steps")
    )
    busy = sum(usage.busy * usage.slot_steps for _, usage in waves) / max(slot_steps, 1)
    tokens = np.concatenate([found.tokens for found, _ in waves])
    return tokens, Occupancy(steps, busy, busy, slot_steps)


def scored_rollouts(
    policy: Policy, config: Config, trajectories: Trajectories, batch: Batch
) -> ScoredRollouts:
    """The answer rule runs as in training; then the made-up rewards take its place."""
    scored = score_rewards(policy, config, trajectories, batch.questions)
    advantages = group_advantages(jnp.asarray(batch.rewards), scored.group_size)
    return dataclasses.replace(scored, rewards=batch.rewards, advantages=np.asarray(advantages))


def timed_step(
    policy: Policy, config: Config, state: TrainState, batch: Batch, step: int
) -> tuple[TrainState, Timed]:
    """One whole step."""
    with ProgramCounter() as programs:
        start = time.perf_counter()
        trajectories, occupancy = rolled_out(policy, config, state.params, batch, step)
        sampled = time.perf_counter()
        scored = scored_rollouts(policy, config, trajectories, batch)
        state, _ = update_policy(policy, config, state, None, trajectories, scored)
        jax.block_until_ready(state)
        end = time.perf_counter()
    return state, Timed(sampled - start, end - sampled, occupancy, programs.compiled)


def planner(savings: dict[str, bool]) -> Callable[..., BatchPlan]:
    """Plans micro-batches with some of the savings off."""
    return lambda *given, **options: plan_batch(*given, **options | savings)


# Slots are given up, and caches grow, at other steps with refilling than without: sums over other
# shapes round otherwise, and a token that two candidates nearly share may be the other one, and so
# all that follow. Anything wrong with a slot or a cache changes most responses.
MOST_DIFFERING = 0.01


def differing_responses(some: Int[np.ndarray, "B T"], other: Int[np.ndarray, "B T"]) -> int:
    """How many responses of two rollouts of the same requests have another token anywhere."""
    return int((some != other).any(axis=1).sum())


def check_differing(differing: int, responses: int) -> None:
    """Refuse a share of differing responses that rounding does not explain.

    Raises:
      AssertionError: more than `MOST_DIFFERING` of them.
    """
    if differing > MOST_DIFFERING * responses:
        raise AssertionError(
            f"refilled slots sampled other tokens than plain waves in {differing} of {responses} "
            f"responses; rounding changes {MOST_DIFFERING:.0%} of them at most"
        )


# Name -> which savings are on.
VARIANTS = {
    "all": {"only_effective": True, "pack": True, "share_prompts": True},
    "without_skipping": {"only_effective": False, "pack": True, "share_prompts": True},
    "without_packing": {"only_effective": True, "pack": False, "share_prompts": True},
    "without_prompt_sharing": {"only_effective": True, "pack": True, "share_prompts": False},
    "none": {"only_effective": False, "pack": False, "share_prompts": False},
}


def time_savings(
    policy: Policy, config: Config, state: TrainState, batches: list[Batch]
) -> tuple[TrainState, dict[str, Any]]:
    """Median seconds of rollout and update with each saving on and off, on the same responses.

    The variants alternate. A call in which anything was compiled is made again.

    Raises:
      AssertionError: refilling changed more of what was sampled than rounding explains.
    """
    rollouts: dict[str, list[float]] = {"refilled": [], "waves": []}
    occupancies: dict[str, list[Occupancy]] = {"refilled": [], "waves": []}
    updates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    differing, responses = 0, sum(len(batch.limits) for batch in batches)
    with ProgramCounter() as programs:

        def timed(times, function, *given):
            while True:
                before, start = programs.compiled, time.perf_counter()
                found = function(*given)
                if programs.compiled == before:
                    times.append(time.perf_counter() - start)
                    return found

        for step, batch in enumerate(batches):
            given = policy, config, state.params, batch, step
            trajectories, occupancy = timed(rollouts["refilled"], rolled_out, *given)
            tokens, waves = timed(rollouts["waves"], in_waves, *given)
            occupancies["refilled"].append(occupancy)
            occupancies["waves"].append(waves)
            differing += differing_responses(np.asarray(trajectories.tokens), tokens)
            check_differing(differing, responses)
            scored = scored_rollouts(policy, config, trajectories, batch)
            for name, savings in VARIANTS.items():

                def one_update(savings=savings, trajectories=trajectories, scored=scored):
                    nonlocal state  # which is donated: another try starts from the newest
                    state, _ = update_policy(
                        policy, config, state, None, trajectories, scored, planner(savings)
                    )
                    jax.block_until_ready(state)

                timed(updates[name], one_update)
    median = statistics.median
    rollout_s = {name: median(times) for name, times in rollouts.items()}
    update_s = {name: median(times) for name, times in updates.items()}
    return state, {
        "rollout_s": rollout_s,
        "update_s": update_s,
        "rollout_ratio": rollout_s["refilled"] / rollout_s["waves"],
        "update_ratio": update_s["all"] / update_s["none"],
        "slots_busy_while_waiting": {
            name: median(o.busy_while_waiting or 1.0 for o in all_)
            for name, all_ in occupancies.items()
        },
        "differing_responses": differing,
        "responses": responses,
        "decode_steps": {name: median(o.steps for o in all_) for name, all_ in occupancies.items()},
    }
