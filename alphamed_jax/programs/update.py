"""The records of what becomes of the responses: their reward, and the update."""

from typing import Any

from alphamed_jax.compiled import closed_form
from alphamed_jax.compiled.report import ProgramReport
from alphamed_jax.programs import estimate
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Bar, Call, Program, call, ratio_bar
from alphamed_jax.rl import batch, update
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.reward import AnswerAutomaton


def needed_update_flops(step: PlannedStep) -> int:
    """FLOPs of a micro-batch on a device, where nothing is computed twice."""
    sizes = step.model, step.shape.prompts, step.shape.prompt_width
    flops = closed_form.update_flops(*sizes, step.response_lengths, step.lora)
    return flops // step.mesh.size // step.full_plan.prompts.shape[0]


def _extract_arguments(step: PlannedStep) -> Call:
    sampled = step.trajectories
    bare_only = step.array((step.responses,), bool)
    return call(step.automaton, sampled.tokens, sampled.lengths, bare_only)


def _reward(step: PlannedStep) -> Call:
    automaton, tokens, lengths, bare_only = _extract_arguments(step).arguments
    told = step.array((step.responses,), "int32")
    return call(automaton, tokens, lengths, told, told, bare_only)


def _beside_reading(step: PlannedStep) -> tuple[Any, ...]:
    """Weights for decoding are kept until no round of questions follows, and what the answer rule
    does not read of the responses."""
    sampled = step.trajectories
    return (
        *(step.state, step.reference, step.params_copy),
        *(step.decode_weights, *step.earlier_rounds),
        *(sampled.prompt_tokens, sampled.prompt_lengths, sampled.logprobs, sampled.finished),
    )


def _other_batches(step: PlannedStep) -> tuple[Any, ...]:
    """All mini-batches are gathered before the first update, and stay until the last."""
    return (step.batch,) * (step.shape.mini_batches - 1)


def _with_kl(step: PlannedStep) -> bool:
    return step.objective.loss.kl_coef > 0


def _scores(step: PlannedStep) -> int:
    """How often each mini-batch is scored: under the sampling policy, and under the reference."""
    return _with_kl(step) + step.shape.old_logprobs


def _scored_weights(step: PlannedStep) -> bool:
    """Whether it is the policy's own weights that take most memory in scoring."""
    return step.shape.old_logprobs or not step.reference


def _score(step: PlannedStep) -> Call:
    weights = step.state.params if _scored_weights(step) else step.reference
    given = step.batch._replace(old_logprobs=None, reference_logprobs=None)
    return call(weights, given, step.scalar(), objective=step.objective)


def _update(step: PlannedStep) -> Call:
    totals = Totals(step.scalar("float32"), step.scalar("float32"))
    return call(step.state, step.batch, step.scalar(), totals, objective=step.objective)


def _logit_rows(step: PlannedStep, report: ProgramReport) -> Bar:
    """No more logits exist at once than those of a chunk of tokens."""
    vocabulary = step.model.vocab_size
    vocabulary //= closed_form.shards(step.model, "vocab", step.update_mesh.shape["tensor"])
    rows = report.most_rows(vocabulary, but=step.model.hidden_size)
    most = step.objective.compute.logits_chunk
    return {"measured": rows, "bar": most, "kept": rows <= most}


def _most_flops(step: PlannedStep) -> float:
    """Over those needed: 5 % above an update that computes each layer's forward pass twice."""
    passes = 2 if step.lora.rank else 3  # with adapters no gradients of the wide weights
    return round(1.05 * (passes + 1) / passes, 3)


def _update_bars(step: PlannedStep, report: ProgramReport) -> dict[str, Bar]:
    flops = ratio_bar(report.work.flops, needed_update_flops(step), _most_flops(step))
    return {"update_flops": flops, "update_logit_rows": _logit_rows(step, report)}


UPDATE = Program(
    name="update",
    stage="update",
    function=update.update,
    arguments=_update,
    resident=lambda step: (step.reference, *step.held_trajectories, *_other_batches(step)),
    repeats=lambda step, course: step.shape.mini_batches * step.shape.epochs,
    unit="a micro-batch",
    estimate=estimate.update,
    bars=_update_bars,
    versions=lambda step, variety: variety.batches,
)

PROGRAMS = (
    Program(
        name="reward",
        stage="reward",
        function=AnswerAutomaton.reward,
        arguments=_reward,
        resident=_beside_reading,
    ),
    Program(
        name="extract_or_reason",
        stage="reward",
        function=AnswerAutomaton.extract_or_reason,
        arguments=_extract_arguments,
        resident=lambda step: (*_beside_reading(step), step.array((step.responses,), "float32")),
        planned=False,
    ),
    Program(
        name="gather",
        stage="update",
        function=batch._gather,
        arguments=lambda step: call(*step.gathering[0], **step.gathering[1]),
        # A part of the responses is taken apart for each mini-batch, all of them stay.
        resident=lambda step: (
            *(step.state, step.reference, *step.held_trajectories),
            *_other_batches(step),
        ),
        versions=lambda step, variety: variety.batches,
        planned=False,
    ),
    Program(
        name="score",
        stage="update",
        function=update.score,
        arguments=_score,
        resident=lambda step: (
            *((step.reference,) if _scored_weights(step) else (step.state.params,)),
            *(step.optimizer, *step.held_trajectories, *_other_batches(step)),
        ),
        used=lambda step: _scores(step) > 0,
        repeats=lambda step, course: _scores(step) * step.shape.mini_batches,
        unit="a micro-batch",
        estimate=estimate.score,
        bars=lambda step, report: {"score_logit_rows": _logit_rows(step, report)},
        versions=lambda step, variety: _scores(step) * variety.batches,
    ),
    UPDATE,
)
