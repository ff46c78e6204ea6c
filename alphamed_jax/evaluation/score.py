"""From the tokens of a response to its text, its letter and its line in the file of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import render_prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.evaluation.ask import AskedSet
from alphamed_jax.evaluation.rules import extract
from alphamed_jax.evaluation.samples import Sample
from alphamed_jax.rl.requests import Completion


@dataclass(frozen=True)
class Response:
    """A response as text, and what it answers."""

    text: str
    tokens: int
    """The stop id included."""
    truncated: bool
    letter: str | None
    reason: str


def response_text(vocabulary: Sequence[bytes], completion: Completion) -> str:
    """The text of a response as the answer rule sees it.

    Signs such as the end of a turn are left out; the tags of a thought are kept, special or not,
    so that whoever reads the text finds the same answer as who reads the tokens.

    Args:
      vocabulary: `data.tokenizer.token_bytes`.
    """
    known = len(vocabulary)
    data = b"".join(vocabulary[i] for i in completion.tokens.tolist() if i < known)
    return data.decode("utf-8", errors="replace")


def read_response(
    vocabulary: Sequence[bytes],
    completion: Completion,
    question: Question,
    *,
    rule: str,
    inside_thought: bool,
) -> Response:
    """Read a completion by an extraction rule.

    Args:
      vocabulary: `data.tokenizer.token_bytes`.
      rule: see `rules.RULES`.
      inside_thought: the prompt ends with an open `<think>`.
    """
    text, cut = response_text(vocabulary, completion), not completion.finished
    letter, reason = extract(rule, text, question, inside_thought=inside_thought, truncated=cut)
    return Response(text, completion.length, cut, letter, reason)


def samples_of(
    asked: AskedSet,
    responses: Sequence[Sequence[Response]],
    tokenizer: Any,
    prompt: PromptConfig,
    sampling: dict[str, Any],
) -> list[Sample]:
    """The lines of a set's file, by question, then sample.

    Args:
      responses: of each prompt of the set, one for each sample.
    """
    samples = []
    for doc_id, put, answers in zip(asked.doc_ids, asked.prompts, responses, strict=True):
        text = render_prompt(tokenizer, put.question, prompt)
        samples += [
            Sample(
                doc_id=doc_id,
                question=put.question,
                prompt=text,
                sampling=sampling,
                sample=number,
                response=found.text,
                tokens=found.tokens,
                truncated=found.truncated,
                letter=found.letter,
                reason=found.reason,
            )
            for number, found in enumerate(answers)
        ]
    return samples
