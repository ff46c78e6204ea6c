"""One GRPO step: sample, reward, compare within the group, update.

All but the update runs with `policy.mesh` in context.
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from alphamed_jax.config import Config
from alphamed_jax.data.draws import Draws
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.model.config import Params
from alphamed_jax.model.mesh import device_put_global, host_get
from alphamed_jax.rl.advantages import group_advantages
from alphamed_jax.rl.dynamic_sampling import sample_rounds
from alphamed_jax.rl.mini_batches import update_policy
from alphamed_jax.rl.policy import Policy, make_sampler
from alphamed_jax.rl.requests import Request
from alphamed_jax.rl.resharding import params_to_sample
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.sampler_run import SamplerWeights
from alphamed_jax.rl.shaping import describe_signals, shaped_rewards
from alphamed_jax.rl.step_metrics import (
    Metrics,
    describe_rollouts,
    describe_sources,
    describe_work,
)
from alphamed_jax.rl.trajectories import ScoredRollouts, Trajectories
from alphamed_jax.rl.update import TrainState


def grpo_step(
    policy: Policy,
    config: Config,
    state: TrainState,
    reference: Params | None,
    draws: Draws,
    cursor: int,
) -> tuple[TrainState, Metrics, ScoredRollouts]:
    """Take a step on the next of the training questions, of which `cursor` were drawn before.

    `reference` is that of `update_policy`. What was sampled is that of all questions that the step
    has drawn.
    """
    started = time.perf_counter()
    with jax.set_mesh(policy.mesh):
        trajectories, chosen, scored = sample_batch(policy, config, state.params, draws, cursor)
    sampled = time.perf_counter()
    batch = scored.take_groups(chosen)
    state, learned = update_policy(policy, config, state, reference, trajectories, batch)
    jax.block_until_ready(state)
    seconds = {"rollout": sampled - started, "update": time.perf_counter() - sampled}
    signals = describe_signals(config.reward, scored, config.rollout.max_new_tokens)
    metrics = describe_rollouts(scored) | signals | learned
    metrics |= draws.describe(cursor, len(scored.questions))
    metrics |= describe_sources(scored, draws.sources)
    return state, metrics | describe_work(config, metrics, scored, seconds), scored


def sample_batch(
    policy: Policy, config: Config, params: Params, draws: Draws, cursor: int
) -> tuple[Trajectories, Int[np.ndarray, "P"], ScoredRollouts]:
    """Sample and score a batch to learn from, in rounds; see `sample_rounds`."""
    prompts, rounds = config.rollout.prompts, config.rollout.max_rounds
    sampler = make_sampler(policy, config)
    weights = sampler.load(params_to_sample(policy, params))

    def sample_round(done: int) -> tuple[Trajectories, ScoredRollouts]:
        fresh = draws.next(cursor + done, prompts)
        trajectories = sample(policy, config, sampler, weights, fresh, cursor + done)
        return trajectories, score_rewards(policy, config, trajectories, fresh)

    return sample_rounds(sample_round, prompts, rounds, policy.mesh)


def sample(
    policy: Policy,
    config: Config,
    sampler: Sampler,
    weights: SamplerWeights,
    questions: Sequence[Prompt],
    cursor: int,
) -> Trajectories:
    """Roll out a group for each question. Sequence ids run on with the questions drawn."""
    group = config.rollout.group_size
    groups = [
        Request(question.token_ids, range(first, first + group))
        for first, question in zip(itertools.count(cursor * group, group), questions, strict=False)
    ]
    return sampler.sample(weights, groups, policy.key)[0]


def score_rewards(
    policy: Policy, config: Config, trajectories: Trajectories, questions: Sequence[Prompt]
) -> ScoredRollouts:
    """Reward every response by the answer rule, on the devices, and compare within groups.

    What is compared is the reward with the signals of `config.reward`; a group that is not
    effective by the letter has no advantages.
    """
    group_size, mesh = config.rollout.group_size, policy.mesh
    told = [(q.question.answer_index, len(q.question.options)) for q in questions]
    answers, options = np.repeat(np.array(told, np.int32), group_size, axis=0).T
    bare_only = np.repeat([q.question.options_look_like_labels for q in questions], group_size)
    tokens, lengths = trajectories.tokens, trajectories.lengths
    answer, number, bare = (
        device_put_global(x, (None,), mesh) for x in (answers, options, bare_only)
    )
    rewards = policy.automaton.reward(tokens, lengths, answer, number, bare)
    learned = rewards
    if config.reward.shapes:
        binary, length = host_get((rewards, lengths), mesh)
        shaped = shaped_rewards(
            config.reward,
            binary,
            length,
            group_size=group_size,
            longest=config.rollout.max_new_tokens,
        )
        learned = device_put_global(shaped, (None,), mesh)
    found = {
        "tokens": tokens,
        "lengths": lengths,
        "finished": trajectories.finished,
        "extracted": policy.automaton.extract_or_reason(tokens, lengths, bare),
        "rewards": rewards,
        "advantages": group_advantages(learned, group_size, config.loss.advantage),
    }
    scored = ScoredRollouts(questions=tuple(questions), options=options, **host_get(found, mesh))
    if config.reward.shapes:
        kept = np.repeat(scored.effective, group_size)
        scored = dataclasses.replace(scored, advantages=np.where(kept, scored.advantages, 0.0))
    return scored
