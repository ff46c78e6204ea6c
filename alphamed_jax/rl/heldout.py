"""Evaluation during training: held-out questions, sampled and greedy, by the same answer rule.

It runs in the very programs of a training rollout: the same number of prompts and responses, padded
alike, each row with its own way to draw. Rows that no response is asked of end at once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from alphamed_jax.data.prompts import Prompt
from alphamed_jax.model.network import Params
from alphamed_jax.rl.decode_weights import DecodeWeights
from alphamed_jax.rl.rollout import roll_out
from alphamed_jax.rl.step import Learner, Outcome, decoding_weights, judge

# Evaluation noise must not be training noise: its keys fold in this number first.
EVALUATION_STREAM = 0x0E7A1


class Asked(NamedTuple):
    """What one rollout is asked for; row p·G + g is response g to prompt p."""

    questions: list[Prompt]
    """One of each prompt; the first one stands in for those that only fill up."""
    owner: Int[np.ndarray, "B"]
    """Index of the question that a row is a response to; -1: it is not asked for."""
    sequence: Int[np.ndarray, "B"]
    greedy: Bool[np.ndarray, "B"]


def batches(questions: Sequence[Prompt], samples: int, prompts: int, group: int) -> Iterator[Asked]:
    """Ask for `samples` responses to each question and a greedy one, in rollouts of one shape.

    A question takes as many prompts of a rollout as its responses need. Sample j of question q has
    sequence id q · samples + j, whatever the sizes of a rollout are.
    """
    wanted = samples + 1
    each = -(-wanted // group)
    # Of each prompt in turn: its question, and its row as counted among that question's.
    owner = np.repeat(np.arange(len(questions)), each)
    row = np.arange(len(owner) * group).reshape(-1, group) % (each * group)
    for start in range(0, len(owner), prompts):
        here = np.full(prompts, -1)
        here[: len(owner) - start] = owner[start : start + prompts]
        rows = np.full((prompts, group), wanted)
        rows[: len(owner) - start] = row[start : start + prompts]
        asked, greedy = (here[:, None] >= 0) & (rows < wanted), rows == samples
        yield Asked(
            [questions[max(q, here[0])] for q in here],
            np.where(asked, here[:, None], -1).reshape(-1),
            np.where(asked & ~greedy, here[:, None] * samples + rows, 0).reshape(-1),
            (asked & greedy).reshape(-1),
        )


def evaluate(
    learner: Learner,
    params: Params,
    questions: Sequence[Prompt],
    tokenizer: Any,
    step: int,
) -> dict[str, Any]:
    """Accuracy of sampled and greedy responses; the same noise at every call.

    Accuracy of the sampled responses is the mean over all samples; `steps_share` counts responses
    that say anything before their box.
    """
    rollout, samples = learner.config.rollout, learner.config.eval.samples
    rows: dict[str, list[Row]] = {"sampled": [], "greedy": []}
    layout = decoding_weights(learner, params) if questions else None
    for asked in batches(questions, samples, rollout.prompts, rollout.group_size):
        outcome = answered(learner, params, asked, layout)
        texts = decode_responses(tokenizer, outcome.tokens, outcome.lengths * (asked.owner >= 0))
        for i in np.flatnonzero(asked.owner >= 0):
            question, letter = questions[asked.owner[i]].question, int(outcome.verdicts[i])
            rows["greedy" if asked.greedy[i] else "sampled"].append(
                (
                    question.source,
                    letter == question.answer_index,
                    not outcome.answered[i],
                    int(outcome.lengths[i]),
                    not outcome.finished[i],
                    says_something_first(texts[i]),
                )
            )
    by_source: dict[str, dict[str, Any]] = defaultdict(dict)
    for way, all_ in rows.items():
        for source in Counter(row[0] for row in all_):
            by_source[source][way] = _summary([row for row in all_ if row[0] == source])
    return {
        "step": step,
        "questions": len(questions),
        "samples_per_question": samples,
        **{way: _summary(all_) for way, all_ in rows.items()},
        "by_source": dict(by_source),
    }


def answered(
    learner: Learner, params: Params, asked: Asked, layout: DecodeWeights | None
) -> Outcome:
    """Roll out and judge as training does, with the noise of evaluation."""
    settings, rollout = learner.settings, learner.config.rollout
    trajectories, _ = roll_out(
        settings.model,
        params,
        [question.token_ids for question in asked.questions],
        group_size=rollout.group_size,
        max_new_tokens=rollout.max_new_tokens,
        sampling=settings.sampling,
        stop_ids=learner.stop_ids,
        key=jax.random.fold_in(learner.key, EVALUATION_STREAM),
        dtype=settings.compute.dtype,
        attention=settings.compute.attention,
        layout=layout,
        slots=rollout.slots,
        prompt_width=learner.prompt_width,
        limits=np.where(asked.owner >= 0, rollout.max_new_tokens, 0),
        sequences=asked.sequence,
        greedy=asked.greedy,
    )
    return judge(learner, trajectories, asked.questions)


Row = tuple[str, bool, bool, int, bool, bool]
"""Source, right, without answer, length, cut, says something first; of one response."""


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    if not rows:
        return {"accuracy": None, "correct": 0, "total": 0}
    _, right, unanswered, lengths, cut, steps = (np.array(c) for c in zip(*rows, strict=True))
    return {
        "accuracy": float(right.mean()),
        "correct": int(right.sum()),
        "total": len(rows),
        "no_answer": float(unanswered.mean()),
        "length_mean": float(lengths.mean()),
        "truncated": float(cut.mean()),
        "steps_share": float(steps.mean()),
    }


def says_something_first(text: str) -> bool:
    """Whether a response says anything, a word at least, before its first box."""
    before, box, _ = text.partition("\\boxed")
    return bool(box) and any(character.isalpha() for character in before)


def decode_responses(tokenizer: Any, tokens: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Text of each response, special tokens left out, white space as it was sampled."""
    return [
        tokenizer.decode(
            row[:length].tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for row, length in zip(tokens, lengths, strict=True)
    ]
