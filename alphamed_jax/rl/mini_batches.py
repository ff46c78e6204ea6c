"""The update of a step: mini-batches, in micro-batches, as often as there are epochs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from alphamed_jax.config import Config
from alphamed_jax.model.config import Params
from alphamed_jax.model.lora import without_adapters
from alphamed_jax.model.mesh import data_shards, host_get
from alphamed_jax.rl.batch import BatchPlan, GroupBatch, gather, plan_batch
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.policy import Policy
from alphamed_jax.rl.resharding import trajectories_to_learn
from alphamed_jax.rl.shaping import without_truncated
from alphamed_jax.rl.step_metrics import Metrics, combine_updates
from alphamed_jax.rl.trajectories import ScoredRollouts, Trajectories
from alphamed_jax.rl.update import TrainState, score, update


def update_policy(
    policy: Policy,
    config: Config,
    state: TrainState,
    reference: Params | None,
    trajectories: Trajectories,
    scored: ScoredRollouts,
    plan_with: Callable[..., BatchPlan] | None = None,
) -> tuple[TrainState, Metrics]:
    """Update on the batch: one pass, or several over mini-batches.

    Args:
      reference: weights of the reference policy, where loss.kl_coef is above 0 and everything is
        trained; with adapters it is the policy without them.
      scored: of the same groups as `trajectories`.
      plan_with: what brings responses into micro-batches; None: `plan_batch`. It changes the cost
        alone.
    """
    trajectories = trajectories_to_learn(policy, trajectories)
    with jax.set_mesh(policy.update_mesh):
        return _update_policy(
            policy, config, state, reference, trajectories, scored, plan_with or plan_batch
        )


def _update_policy(
    policy: Policy,
    config: Config,
    state: TrainState,
    reference: Params | None,
    trajectories: Trajectories,
    scored: ScoredRollouts,
    plan_with: Callable[..., BatchPlan],
) -> tuple[TrainState, Metrics]:
    objective = policy.objective(config)
    if config.reward.skip_truncated:
        trajectories, scored = without_truncated(trajectories, scored)
    if config.loss.kl_coef > 0 and config.lora.rank:
        reference = without_adapters(state.params)
    prompts = len(scored.questions)
    size = prompts // config.update.mini_batches
    batches = []
    for start in range(0, prompts, size):
        made, planned = mini_batch(
            policy, config, trajectories, scored, start, start + size, plan_with
        )
        if config.updates_per_step > 1:
            # Later updates leave the sampling policy: keep its log-probabilities.
            old = score(state.params, made, planned.count, objective=objective)
            made = made._replace(old_logprobs=old)
        if reference is not None:
            against = score(reference, made, planned.count, objective=objective)
            made = made._replace(reference_logprobs=against)
        batches.append((made, planned))
    reports: list[Any] = []
    for _ in range(config.update.epochs):
        for made, planned in batches:
            totals = Totals(jnp.float32(planned.tokens), jnp.float32(planned.sequences))
            state, report = update(state, made, planned.count, totals, objective=objective)
            reports.append(report)
    reports, skipped = host_get((reports, state.skipped), policy.update_mesh)
    return state, combine_updates(reports) | {"updates/skipped": int(skipped)}


def mini_batch(
    policy: Policy,
    config: Config,
    trajectories: Trajectories,
    scored: ScoredRollouts,
    first: int,
    last: int,
    plan_with: Callable[..., BatchPlan],
) -> tuple[GroupBatch, BatchPlan]:
    """Plan and gather the micro-batches of the groups `first` to `last`."""
    size = scored.group_size
    lengths = scored.lengths.reshape(-1, size)[first:last]
    advantages = scored.advantages.reshape(-1, size)[first:last]
    planned = plan_with(
        scored.prompt_lengths[first:last],
        lengths,
        advantages,
        micro_batch=config.update.micro_batch,
        data_shards=data_shards(policy.update_mesh),
        only_effective=config.only_effective,
        longest=config.rollout.max_new_tokens,
        prompt_width=trajectories.prompt_tokens.shape[-1],
    )
    if config.reward.skip_truncated:
        planned = planned._replace(sequences=max(int((lengths > 0).sum()), 1))
    part = trajectories.slice_groups(first, last)
    return gather(part, lengths, advantages, planned, policy.update_mesh), planned
