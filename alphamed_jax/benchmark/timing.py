"""Timed steps: what each phase takes, and what each saving saves."""

import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax.benchmark.setup import Batch
from alphamed_jax.model.mesh import data_shards, mesh_of
from alphamed_jax.rl.advantages import group_advantages
from alphamed_jax.rl.batch import gather, plan
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.requests import Request
from alphamed_jax.rl.slots import Occupancy
from alphamed_jax.rl.step import Learner, Outcome, judge, learn, make_sampler
from alphamed_jax.rl.trajectories import Trajectories
from alphamed_jax.rl.update import TrainState, update
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
    learner: Learner, params: Any, batch: Batch, step: int
) -> tuple[Trajectories, Occupancy]:
    """Responses of the batch, as `rl.step.sample` draws them, cut at the lengths it asks for."""
    sampler = make_sampler(learner, mesh_of(params))
    found = sampler.sample(sampler.load(params), groups_of(learner, batch, step), learner.key)
    return jax.block_until_ready(found)


def groups_of(learner: Learner, batch: Batch, step: int) -> list[Request]:
    """What a step asks for."""
    size = learner.config.rollout.group_size
    first = step * len(batch.limits)
    return [
        Request(
            question.token_ids,
            range(first + number * size, first + (number + 1) * size),
            batch.limits[number * size : (number + 1) * size].tolist(),
        )
        for number, question in enumerate(batch.questions)
    ]


def in_waves(learner: Learner, params: Any, batch: Batch, step: int) -> tuple[Any, Occupancy]:
    """The same without refilling: as many groups as slots hold, to the end, then the next ones.

    Returns the tokens, and how busy the slots were.
    """
    sampler = make_sampler(learner, mesh_of(params))
    weights, groups = sampler.load(params), groups_of(learner, batch, step)
    slots = learner.config.rollout.slots or len(batch.limits)
    size = max(slots // learner.config.rollout.group_size, 1)
    waves = [
        sampler.sample(weights, groups[first : first + size], learner.key)
        for first in range(0, len(groups), size)
    ]
    jax.block_until_ready(waves)
    steps = sum(usage.steps for _, usage in waves)
    busy = sum(usage.busy * usage.steps for _, usage in waves) / max(steps, 1)
    tokens = np.concatenate([found.tokens for found, _ in waves])
    return tokens, Occupancy(steps, busy, busy)


def judged(learner: Learner, trajectories: Trajectories, batch: Batch) -> Outcome:
    """The answer rule runs as in training; then the made-up rewards take its place."""
    outcome = judge(learner, trajectories, batch.questions)
    rewards = jnp.asarray(batch.rewards)
    advantages = group_advantages(rewards, learner.config.rollout.group_size)
    return outcome._replace(rewards=batch.rewards, advantages=np.asarray(advantages))


def timed_step(
    learner: Learner, state: TrainState, batch: Batch, step: int
) -> tuple[TrainState, Timed, Outcome]:
    """One whole step."""
    with ProgramCounter() as programs:
        start = time.perf_counter()
        trajectories, occupancy = rolled_out(learner, state.params, batch, step)
        sampled = time.perf_counter()
        outcome = judged(learner, trajectories, batch)
        state, _ = learn(learner, state, None, trajectories, outcome)
        jax.block_until_ready(state)
        end = time.perf_counter()
    return state, Timed(sampled - start, end - sampled, occupancy, programs.compiled), outcome


# Name -> which savings are on.
VARIANTS = {
    "all": {"skip_constant": True, "pack": True, "share_prompts": True},
    "without_skipping": {"skip_constant": False, "pack": True, "share_prompts": True},
    "without_packing": {"skip_constant": True, "pack": False, "share_prompts": True},
    "without_prompt_sharing": {"skip_constant": True, "pack": True, "share_prompts": False},
    "none": {"skip_constant": False, "pack": False, "share_prompts": False},
}


def time_savings(
    learner: Learner, state: TrainState, batches: list[Batch]
) -> tuple[TrainState, dict[str, Any]]:
    """Median seconds of rollout and update with each saving on and off, on the same responses.

    The variants alternate. A call in which anything was compiled is made again.

    Raises:
      AssertionError: refilling changed what was sampled.
    """
    rollouts: dict[str, list[float]] = {"refilled": [], "waves": []}
    occupancies: dict[str, list[Occupancy]] = {"refilled": [], "waves": []}
    updates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with ProgramCounter() as programs:

        def timed(times, function, *given):
            while True:
                before, start = programs.compiled, time.perf_counter()
                found = function(*given)
                if programs.compiled == before:
                    times.append(time.perf_counter() - start)
                    return found

        for step, batch in enumerate(batches):
            given = learner, state.params, batch, step
            trajectories, occupancy = timed(rollouts["refilled"], rolled_out, *given)
            tokens, waves = timed(rollouts["waves"], in_waves, *given)
            occupancies["refilled"].append(occupancy)
            occupancies["waves"].append(waves)
            if not np.array_equal(trajectories.tokens, tokens):
                raise AssertionError("refilled slots sampled other tokens than plain waves")
            outcome = judged(learner, trajectories, batch)
            for name, savings in VARIANTS.items():

                def one_update(savings=savings, trajectories=trajectories, outcome=outcome):
                    nonlocal state  # which is donated: another try starts from the newest
                    state = _update(learner, state, trajectories, outcome, savings)

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
        "decode_steps": {name: median(o.steps for o in all_) for name, all_ in occupancies.items()},
    }


def _update(
    learner: Learner,
    state: TrainState,
    trajectories: Trajectories,
    outcome: Outcome,
    savings: dict[str, bool],
) -> TrainState:
    group, mesh = learner.config.rollout.group_size, mesh_of(state.params)
    lengths = outcome.lengths.reshape(-1, group)
    advantages = outcome.advantages.reshape(-1, group)
    layout = plan(
        np.asarray(trajectories.prompt_lengths),
        lengths,
        advantages,
        micro_batch=learner.config.update.micro_batch,
        rows=data_shards(mesh),
        longest=learner.config.rollout.max_new_tokens,
        prompt_width=trajectories.prompt_tokens.shape[-1],
        **savings,
    )
    with jax.set_mesh(mesh):
        batch = gather(trajectories, lengths, advantages, layout)
        totals = Totals(jnp.float32(layout.tokens), jnp.float32(layout.sequences))
        state, _ = update(state, batch, layout.count, totals, settings=learner.settings)
    return jax.block_until_ready(state)
