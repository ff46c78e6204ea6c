"""Evaluation during training: held-out questions, sampled and greedy, by the same answer rule.

Sampled and greedy responses go together, in batches of a training step, so that an evaluation runs
the programs that training has: compiling those of a stream would take longer than it saves.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from alphamed_jax.config import Config
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.model.config import Params
from alphamed_jax.model.mesh import device_put_global, host_get
from alphamed_jax.rl.policy import Policy, make_sampler
from alphamed_jax.rl.requests import Completion, Request

# Evaluation noise must not be training noise: its keys fold in this number first.
EVALUATION_STREAM = 0x0E7A1


def requests(questions: Sequence[Prompt], samples: int) -> Iterator[Request]:
    """Ask for `samples` responses to each question and a greedy one, which is the last.

    Sample j of question q has sequence id q · samples + j; greedy ones have no noise.
    """
    greedy = [False] * samples + [True]
    for first, question in zip(itertools.count(0, samples), questions, strict=False):
        yield Request(question.token_ids, [*range(first, first + samples), 0], greedy=greedy)


def evaluate(
    policy: Policy,
    config: Config,
    params: Params,
    questions: Sequence[Prompt],
    step: int,
) -> dict[str, Any]:
    """Accuracy of sampled and greedy responses; the same noise at every call.

    Accuracy of the sampled responses is the mean over all samples; `steps_share` counts responses
    that say anything before their box.
    """
    samples = config.eval.samples
    rows: dict[str, list[Row]] = {"sampled": [], "greedy": []}
    for batch in _batches(policy, config, params, questions):
        asked = [questions[completion.request] for completion in batch]
        read = read_answers(policy, config, batch, asked)
        texts = decode_responses(policy.tokenizer, [completion.tokens for completion in batch])
        for completion, prompt, letter, text in zip(batch, asked, read, texts, strict=True):
            question = prompt.question
            rows["greedy" if completion.response == samples else "sampled"].append(
                (
                    question.source,
                    bool(letter == question.answer_index),
                    not 0 <= letter < len(question.options),
                    completion.length,
                    not completion.finished,
                    says_something_first(text),
                )
            )
    by_source: dict[str, dict[str, Any]] = defaultdict(dict)
    for way, all_ in rows.items():
        for source in dict.fromkeys(prompt.question.source for prompt in questions):
            by_source[source][way] = _summary([row for row in all_ if row[0] == source])
    return {
        "step": step,
        "questions": len(questions),
        "samples_per_question": samples,
        **{way: _summary(all_) for way, all_ in rows.items()},
        "by_source": dict(by_source),
    }


def _batches(
    policy: Policy, config: Config, params: Params, questions: Sequence[Prompt]
) -> Iterator[tuple[Completion, ...]]:
    """Completions, as many at a time as a training step has responses."""
    if not questions:
        return
    sampler, rollout = make_sampler(policy, config), config.rollout
    completions = sampler.in_batches(
        sampler.load(params),
        requests(questions, config.eval.samples),
        jax.random.fold_in(policy.key, EVALUATION_STREAM),
    )
    size = rollout.prompts * rollout.group_size
    while batch := tuple(itertools.islice(completions, size)):
        yield batch


def read_answers(
    policy: Policy, config: Config, batch: Sequence[Completion], asked: Sequence[Prompt]
) -> Int[np.ndarray, "n"]:
    """What the responses answer, read on the devices in the program that training has for it.

    An option's index, or below 0 why there is none, as `AnswerAutomaton.extract_or_reason` says.
    """
    rollout, mesh = config.rollout, policy.mesh
    rows = rollout.prompts * rollout.group_size
    tokens = np.zeros((rows, rollout.max_new_tokens), np.int32)
    lengths, bare_only = np.zeros(rows, np.int32), np.zeros(rows, bool)
    for row, (completion, prompt) in enumerate(zip(batch, asked, strict=True)):
        lengths[row] = completion.length
        tokens[row, : completion.length] = completion.tokens
        bare_only[row] = prompt.question.options_look_like_labels
    found = policy.automaton.extract_or_reason(
        device_put_global(tokens, ("batch", None), mesh),
        device_put_global(lengths, ("batch",), mesh),
        device_put_global(bare_only, (None,), mesh),
    )
    return host_get(found, mesh)[: len(batch)]


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


def decode_responses(tokenizer: Any, responses: Sequence[np.ndarray]) -> list[str]:
    """Text of each response, special tokens left out, white space as it was sampled."""
    return [
        tokenizer.decode(
            tokens.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for tokens in responses
    ]
