"""A few rollouts of a step in words, for samples.jsonl and the table on the terminal."""

from alphamed_jax.config import Config
from alphamed_jax.data.prompts import render_prompt
from alphamed_jax.output.metrics import Sample
from alphamed_jax.rl.policy import Policy
from alphamed_jax.rl.reward import describe
from alphamed_jax.rl.trajectories import ScoredRollouts


def describe_samples(policy: Policy, config: Config, scored: ScoredRollouts) -> list[Sample]:
    """The first rollout of the first `log.samples` questions, then second rollouts, and so on."""
    group = scored.group_size
    order = sorted(range(len(scored.rewards)), key=lambda row: (row % group, row // group))
    samples = []
    for row in order[: config.log.samples]:
        question = scored.questions[row // group].question
        ids = scored.tokens[row][: scored.lengths[row]].tolist()
        answer = describe(int(scored.extracted[row]), len(question.options))
        cut = answer.letter is None and not scored.finished[row]
        samples.append(
            Sample(
                question_id=question.id,
                prompt=render_prompt(policy.tokenizer, question, policy.prompt),
                # As it is scored: cleaned up, `A .` would read `A.`, which is another answer.
                response=policy.tokenizer.decode(ids, clean_up_tokenization_spaces=False),
                answer=question.answer,
                extracted=answer.letter,
                reason="truncated" if cut else answer.reason,
                reward=float(scored.rewards[row]),
                advantage=float(scored.advantages[row]),
            )
        )
    return samples
