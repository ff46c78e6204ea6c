"""A few rollouts of a step in words, for samples.jsonl and the table on the terminal."""

from typing import Any

from alphamed_jax.config import Config
from alphamed_jax.data.prompts import render_prompt
from alphamed_jax.output.metrics import Sample
from alphamed_jax.rl.reward import describe
from alphamed_jax.rl.step import Outcome


def describe_samples(tokenizer: Any, config: Config, outcome: Outcome) -> list[Sample]:
    """The first rollout of the first `log.samples` questions, then second rollouts, and so on."""
    group = config.rollout.group_size
    order = sorted(range(len(outcome.rewards)), key=lambda row: (row % group, row // group))
    samples = []
    for row in order[: config.log.samples]:
        question = outcome.questions[row // group].question
        ids = outcome.tokens[row][: outcome.lengths[row]].tolist()
        answer = describe(int(outcome.verdicts[row]), len(question.options))
        cut = answer.letter is None and not outcome.finished[row]
        samples.append(
            Sample(
                question_id=question.id,
                prompt=render_prompt(tokenizer, question, config.prompt),
                # As it is scored: cleaned up, `A .` would read `A.`, which is another answer.
                response=tokenizer.decode(ids, clean_up_tokenization_spaces=False),
                answer=question.answer,
                extracted=answer.letter,
                reason="truncated" if cut else answer.reason,
                reward=float(outcome.rewards[row]),
                advantage=float(outcome.advantages[row]),
            )
        )
    return samples
