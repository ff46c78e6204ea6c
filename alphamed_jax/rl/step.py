"""One GRPO step: sample, reward, compare within the group, update."""

import itertools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from alphamed_jax.config import Config
from alphamed_jax.data.order import batch_indices
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.model.attention import choose_attention
from alphamed_jax.model.mesh import data_shards, device_put_global, host_get, mesh_of
from alphamed_jax.model.network import ModelConfig, Params
from alphamed_jax.rl.advantages import group_advantages
from alphamed_jax.rl.batch import GroupBatch, Plan, gather, plan
from alphamed_jax.rl.distribution import Sampling, absent_ids
from alphamed_jax.rl.language_model import Transformer
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.requests import Request
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.rounds import choose, merge
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.sampler_run import SamplerConfig, SamplerWeights
from alphamed_jax.rl.trajectories import Trajectories
from alphamed_jax.rl.update import Settings, TrainState, score, update

Metrics = dict[str, float | int | None]


class Learner(NamedTuple):
    """What stays the same from step to step."""

    config: Config
    settings: Settings
    automaton: AnswerAutomaton
    stop_ids: tuple[int, ...]
    key: Key[Array, ""]
    prompt_width: int = 0
    """Tokens that all prompts are padded to; 0: those of a batch to what its longest needs."""


class Outcome(NamedTuple):
    """What was sampled, on the host; row p·G + g is response g of question p."""

    tokens: Int[np.ndarray, "B T"]
    lengths: Int[np.ndarray, "B"]
    finished: Bool[np.ndarray, "B"]
    verdicts: Int[np.ndarray, "B"]
    """What `AnswerAutomaton.verdicts` found: an option's index, or why there is none."""
    rewards: Float[np.ndarray, "B"]
    advantages: Float[np.ndarray, "B"]
    options: Int[np.ndarray, "B"]
    """Number of options of the row's question."""
    questions: tuple[Prompt, ...]
    """In the order drawn."""

    @property
    def answered(self) -> Bool[np.ndarray, "B"]:
        """Whether the response holds an answer that is one of the options."""
        return (self.verdicts >= 0) & (self.verdicts < self.options)

    @property
    def signal(self) -> Bool[np.ndarray, "P"]:
        """Whether the group of a question has advantages other than zero."""
        return np.any(self.advantages.reshape(len(self.questions), -1) != 0, axis=1)

    def followed_by(self, later: "Outcome") -> "Outcome":
        """This outcome and that of a later round."""
        arrays = (np.concatenate(pair) for pair in zip(self[:-1], later[:-1], strict=True))
        return Outcome(*arrays, questions=self.questions + later.questions)

    def part(self, groups: Int[np.ndarray, "P"]) -> "Outcome":
        """The outcome of some of the questions."""
        size = len(self.rewards) // len(self.questions)
        rows = (groups[:, None] * size + np.arange(size)).reshape(-1)
        questions = tuple(self.questions[p] for p in groups)
        return Outcome(*(x[rows] for x in self[:-1]), questions=questions)


def make_settings(
    config: Config,
    model: ModelConfig,
    platform: str,
    known: Bool[np.ndarray, "V"] | None = None,
) -> Settings:
    """Gather what the compiled programs depend on; `platform` decides what is automatic.

    Args:
      known: which ids have a token (`data.tokenizer.known_tokens`); None: all.

    Raises:
      UserError: an attention that platform, compute dtype or the model's head width do not allow.
    """
    name = config.update.compute_dtype
    if name == "auto":
        name = "float32" if platform == "cpu" else "bfloat16"
    dtype = jnp.dtype(name)
    rollout, attention = config.rollout, config.update.attention
    return Settings(
        model=model,
        sampling=Sampling(rollout.temperature, rollout.top_p, rollout.top_k, absent_ids(known)),
        loss=config.loss,
        optimizer=config.optimizer,
        compute=Compute(
            dtype,
            config.update.remat,
            config.update.logits_chunk,
            choose_attention(attention, platform, dtype, model.head_dim),
        ),
        # A constant rate does not know how long the run is, so a longer one compiles the same.
        total_updates=0
        if config.optimizer.schedule == "constant"
        else config.steps * config.updates_per_step,
        constant_length=config.loss.constant_length or rollout.max_new_tokens,
    )


def grpo_step(
    learner: Learner,
    state: TrainState,
    reference: Params | None,
    questions: Sequence[Prompt],
    drawn: int,
) -> tuple[TrainState, Metrics, Outcome]:
    """Take a step on the next of the training questions, of which `drawn` were drawn before.

    `reference` holds the reference policy's weights where loss.kl_coef is above 0. The outcome
    is that of all questions that the step has drawn.
    """
    started = time.perf_counter()
    trajectories, chosen, outcome = sample_rounds(learner, state.params, questions, drawn)
    sampled = time.perf_counter()
    state, learned = learn(learner, state, reference, trajectories, outcome.part(chosen))
    jax.block_until_ready(state)
    ended = time.perf_counter()

    metrics: dict[str, Any] = describe(outcome, learner.config.rollout.group_size) | learned
    rollout_seconds, update_seconds = sampled - started, ended - sampled
    trained_once = metrics["tokens/trained"] / learner.config.update.epochs
    metrics |= {
        "rollout/rounds": len(outcome.questions) // learner.config.rollout.prompts,
        "tokens/trained_share": trained_once / metrics["tokens/generated"],
        "time/rollout": rollout_seconds,
        "time/update": update_seconds,
        "time/step": ended - started,
        "throughput/generated_per_second": metrics["tokens/generated"] / rollout_seconds,
        "throughput/trained_per_second": metrics["tokens/trained"] / update_seconds,
    }
    return state, metrics, outcome


def sample_rounds(
    learner: Learner, params: Params, questions: Sequence[Prompt], drawn: int
) -> tuple[Trajectories, Int[np.ndarray, "P"], Outcome]:
    """Sample rounds of fresh questions until `rollout.prompts` groups carry a signal.

    After `rollout.max_rounds` it is as it is. The host alone decides, from what is the same in
    every process.

    Returns:
      The batch to learn from, always of `rollout.prompts` groups, its groups among all that were
      sampled, and the outcome of all.
    """
    config = learner.config
    prompts, rounds = config.rollout.prompts, config.rollout.max_rounds
    sampler = make_sampler(learner, mesh_of(params))
    weights = sampler.load(params)

    def sample_round(first):
        indices = batch_indices(config.seed, len(questions), first, prompts)
        fresh = [questions[i] for i in indices]
        trajectories = sample(learner, sampler, weights, fresh, first)
        return trajectories, judge(learner, trajectories, fresh)

    trajectories, outcome = sample_round(drawn)
    chosen = np.arange(prompts)
    for _ in range(1, rounds):
        if outcome.signal.sum() >= prompts:
            break
        done = len(outcome.questions)
        new, judged = sample_round(drawn + done)
        outcome = outcome.followed_by(judged)
        before, chosen = chosen, choose(outcome.signal, prompts)
        at_hand = np.concatenate([before, np.arange(done, done + prompts)])
        source = np.searchsorted(at_hand, chosen)
        tokens = [outcome.questions[p].token_ids for p in chosen]
        trajectories = merge(trajectories, new, source, tokens)
    return trajectories, chosen, outcome


def make_sampler(learner: Learner, mesh: Mesh) -> Sampler:
    """The sampler of a run's rollouts and evaluations."""
    rollout, settings = learner.config.rollout, learner.settings
    compute, everything = settings.compute, rollout.prompts * rollout.group_size
    return Sampler(
        SamplerConfig(
            model=Transformer(
                settings.model, compute.dtype, compute.attention, rollout.weights == "sharded"
            ),
            sampling=settings.sampling,
            stop_ids=learner.stop_ids,
            max_new_tokens=rollout.max_new_tokens,
            prompts=rollout.prompts,
            group_size=rollout.group_size,
            slots=rollout.slots if rollout.slots and rollout.slots < everything else None,
            max_prompt=learner.prompt_width,
        ),
        mesh,
    )


def sample(
    learner: Learner,
    sampler: Sampler,
    weights: SamplerWeights,
    questions: Sequence[Prompt],
    drawn: int,
) -> Trajectories:
    """Roll out a group for each question. Sequence ids run on with the questions drawn."""
    group = learner.config.rollout.group_size
    groups = [
        Request(question.token_ids, range(first, first + group))
        for first, question in zip(itertools.count(drawn * group, group), questions, strict=False)
    ]
    return sampler.sample(weights, groups, learner.key)[0]


def judge(learner: Learner, trajectories: Trajectories, questions: Sequence[Prompt]) -> Outcome:
    """Reward every response by the answer rule, on the devices, and compare within groups."""
    group_size, mesh = learner.config.rollout.group_size, mesh_of(trajectories)
    told = [(q.question.answer_index, len(q.question.options)) for q in questions]
    answers, options = np.repeat(np.array(told, np.int32), group_size, axis=0).T
    bare_only = np.repeat([q.question.options_look_like_labels for q in questions], group_size)
    with jax.set_mesh(mesh):
        tokens, lengths = trajectories.tokens, trajectories.lengths
        answer, number, bare = (
            device_put_global(x, (None,), mesh) for x in (answers, options, bare_only)
        )
        verdicts = learner.automaton.verdicts(tokens, lengths, bare)
        rewards = learner.automaton.reward(tokens, lengths, answer, number, bare)
        advantages = group_advantages(rewards, group_size, learner.config.loss.advantage)
        found = (tokens, lengths, trajectories.finished, verdicts, rewards, advantages)
        return Outcome(*host_get(found, mesh), options=options, questions=tuple(questions))


def learn(
    learner: Learner,
    state: TrainState,
    reference: Params | None,
    trajectories: Trajectories,
    outcome: Outcome,
) -> tuple[TrainState, Metrics]:
    """Update on the batch: one pass, or several over mini-batches."""
    config, settings = learner.config, learner.settings
    mesh = mesh_of(state.params)
    prompts = len(outcome.rewards) // config.rollout.group_size
    size = prompts // config.update.mini_batches
    with jax.set_mesh(mesh):
        batches = []
        for start in range(0, prompts, size):
            batch, layout = mini_batch(learner, trajectories, outcome, slice(start, start + size))
            if config.updates_per_step > 1:
                # Later updates leave the sampling policy: keep its log-probabilities.
                old = score(state.params, batch, layout.count, settings=settings)
                batch = batch._replace(old_logprobs=old)
            if reference is not None:
                against = score(reference, batch, layout.count, settings=settings)
                batch = batch._replace(reference_logprobs=against)
            batches.append((batch, layout))
        reports = []
        for _ in range(config.update.epochs):
            for batch, layout in batches:
                totals = Totals(jnp.float32(layout.tokens), jnp.float32(layout.sequences))
                state, report = update(state, batch, layout.count, totals, settings=settings)
                reports.append(report)
        reports, skipped = host_get((reports, state.skipped), mesh)
    return state, combine(reports) | {"updates/skipped": int(skipped)}


def mini_batch(
    learner: Learner, trajectories: Trajectories, outcome: Outcome, rows: slice
) -> tuple[GroupBatch, Plan]:
    """Plan and gather the micro-batches of the prompts `rows`."""
    config = learner.config
    group = config.rollout.group_size
    mesh = mesh_of(trajectories)
    lengths = outcome.lengths.reshape(-1, group)[rows]
    advantages = outcome.advantages.reshape(-1, group)[rows]
    prompt_lengths = host_get(trajectories.prompt_lengths, mesh)[rows]
    layout = plan(
        prompt_lengths,
        lengths,
        advantages,
        micro_batch=config.update.micro_batch,
        rows=data_shards(mesh),
        skip_constant=config.update.skip_constant_groups and config.loss.kl_coef == 0,
        longest=config.rollout.max_new_tokens,
        prompt_width=trajectories.prompt_tokens.shape[-1],
    )
    per_row = slice(rows.start * group, rows.stop * group)
    part = Trajectories(
        trajectories.prompt_tokens[rows],
        trajectories.prompt_lengths[rows],
        *(x[per_row] for x in trajectories[2:]),
    )
    return gather(part, lengths, advantages, layout), layout


def combine(reports: Sequence[dict[str, Any]]) -> Metrics:
    """Metrics of a step from those of its updates.

    Means over the updates, but: tokens add up, maxima stay maxima, and the gap between sampler
    and trainer is the first update's, as later ones have moved away from the sampling policy. The
    norm of the gradient is the largest, NaN where one was not finite. A mean over no trained token
    is None.
    """
    merged: Metrics = {}
    for name in reports[0]:
        values = np.array([report[name] for report in reports], np.float64)
        if name == "tokens/trained":
            merged[name] = int(values.sum())
        elif name.startswith("sampler_gap"):
            merged[name] = None if np.isnan(values[0]) else float(values[0])
        elif name == "learning_rate":
            merged[name] = float(values[-1])
        elif name == "grad_norm":
            merged[name] = float(values.max())
        else:
            known = values[~np.isnan(values)]
            merged[name] = float(known.mean()) if len(known) else None
    return merged


def describe(outcome: Outcome, group_size: int) -> Metrics:
    """Metrics of what was sampled, before any update."""
    groups = outcome.rewards.reshape(-1, group_size)
    all_right, all_wrong = (groups == 1).all(1).mean(), (groups == 0).all(1).mean()
    return {
        "reward/mean": float(outcome.rewards.mean()),
        "reward/std": float(outcome.rewards.std(ddof=1)),
        "reward/no_answer": float((~outcome.answered).mean()),
        "groups/effective": float((groups.max(1) != groups.min(1)).mean()),
        "groups/all_right": float(all_right),
        "groups/all_wrong": float(all_wrong),
        "response_length/mean": float(outcome.lengths.mean()),
        "response_length/max": int(outcome.lengths.max()),
        "response_length/truncated": float((~outcome.finished).mean()),
        "tokens/generated": int(outcome.lengths.sum()),
    }
