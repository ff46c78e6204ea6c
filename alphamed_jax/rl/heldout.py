"""Evaluation during training: held-out questions, sampled and greedy, by the same answer rule."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from alphamed_jax.data.prompts import EncodedQuestion
from alphamed_jax.model.llama import Params
from alphamed_jax.model.mesh import mesh_of, to_host
from alphamed_jax.rl.rollout import generate, layout_for
from alphamed_jax.rl.step import Learner

# Evaluation noise must not be training noise: its keys fold in this number first.
EVALUATION_STREAM = 0x0E7A1


def evaluate(
    learner: Learner,
    params: Params,
    questions: Sequence[EncodedQuestion],
    tokenizer: Any,
    step: int,
) -> dict[str, Any]:
    """Accuracy of sampled and greedy responses; the same noise at every call.

    Questions go through in batches of rollout.prompts. Accuracy of the sampled responses is the
    mean over all samples; `steps_share` counts responses that say anything before their box.
    """
    rollout, samples = learner.config.rollout, learner.config.eval.samples
    result: dict[str, Any] = {
        "step": step,
        "questions": len(questions),
        "samples_per_question": samples,
    }
    layout = None
    by_source: dict[str, dict[str, Any]] = defaultdict(dict)
    mesh = mesh_of(params)
    if questions:
        at_once = rollout.slots or min(rollout.prompts, len(questions)) * samples
        sharded = rollout.weights == "sharded"
        settings = learner.settings
        layout = layout_for(settings.model, params, at_once, settings.compute.dtype, sharded)
    for way in ("sampled", "greedy"):
        group = samples if way == "sampled" else 1
        rows: list[tuple[str, bool, bool, int, bool, bool]] = []
        for start in range(0, len(questions), rollout.prompts):
            batch = questions[start : start + rollout.prompts]
            trajectories = generate(
                learner.settings.model,
                params,
                [question.tokens for question in batch],
                group_size=group,
                max_new_tokens=rollout.max_new_tokens,
                temperature=rollout.temperature if way == "sampled" else 0.0,
                top_p=rollout.top_p,
                top_k=rollout.top_k,
                stop_ids=learner.stop_ids,
                key=jax.random.fold_in(learner.key, EVALUATION_STREAM),
                first_sequence=start * group,
                dtype=learner.settings.compute.dtype,
                attention=learner.settings.compute.attention,
                layout=layout,
                slots=rollout.slots,
            )
            with jax.set_mesh(mesh):
                letters = learner.automaton.extract(trajectories.tokens, trajectories.lengths)
            tokens, lengths, finished, letters = to_host(
                (trajectories.tokens, trajectories.lengths, trajectories.finished, letters), mesh
            )
            texts = decode_responses(tokenizer, tokens, lengths)
            for row, text in enumerate(texts):
                question = batch[row // group].question
                letter = int(letters[row])
                rows.append(
                    (
                        question.source,
                        letter == question.answer_index,
                        not 0 <= letter < len(question.options),
                        int(lengths[row]),
                        not finished[row],
                        says_something_first(text),
                    )
                )
        result[way] = _summary(rows)
        for source in Counter(row[0] for row in rows):
            by_source[source][way] = _summary([row for row in rows if row[0] == source])
    result["by_source"] = dict(by_source)
    return result


def _summary(rows: Sequence[tuple[str, bool, bool, int, bool, bool]]) -> dict[str, Any]:
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
    """Text of each response, special tokens left out."""
    return [
        tokenizer.decode(row[:length].tolist(), skip_special_tokens=True)
        for row, length in zip(tokens, lengths, strict=True)
    ]
