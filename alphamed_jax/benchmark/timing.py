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
from alphamed_jax.rl.rollout import Occupancy, roll_out
from alphamed_jax.rl.step import Learner, Outcome, judge, learn
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
    learner: Learner, params: Any, batch: Batch, step: int, refill: bool = True
) -> tuple[Trajectories, Occupancy]:
    """Responses of the batch, as `rl.step.sample` draws them, cut at the lengths it asks for."""
    rollout, settings = learner.config.rollout, learner.settings
    found = roll_out(
        settings.model,
        params,
        [question.token_ids for question in batch.questions],
        group_size=rollout.group_size,
        max_new_tokens=rollout.max_new_tokens,
        sampling=settings.sampling,
        stop_ids=learner.stop_ids,
        key=learner.key,
        first_sequence=step * len(batch.limits),
        dtype=settings.compute.dtype,
        attention=settings.compute.attention,
        slots=rollout.slots,
        prompt_width=learner.prompt_width,
        refill=refill,
        limits=batch.limits,
    )
    return jax.block_until_ready(found)


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
        for step, batch in enumerate(batches):
            found = {}
            for name, times in rollouts.items():
                refill = name == "refilled"
                while True:
                    before, start = programs.compiled, time.perf_counter()
                    found[name], occupancy = rolled_out(learner, state.params, batch, step, refill)
                    if programs.compiled == before:
                        break
                times.append(time.perf_counter() - start)
                occupancies[name].append(occupancy)
            trajectories = found["refilled"]
            if not np.array_equal(trajectories.tokens, found["waves"].tokens):
                raise AssertionError("refilled slots sampled other tokens than plain waves")
            outcome = judged(learner, trajectories, batch)
            for name, savings in VARIANTS.items():
                while True:
                    before, start = programs.compiled, time.perf_counter()
                    state = _update(learner, state, trajectories, outcome, savings)
                    if programs.compiled == before:
                        break
                updates[name].append(time.perf_counter() - start)
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
