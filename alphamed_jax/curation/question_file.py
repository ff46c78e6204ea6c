"""Questions and their prompts on disk while they are scored: only an index of them is in memory.

200,000 questions with their prompts are some 400 MB; their index, 24 bytes each, is 5 MB.
"""

import dataclasses
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from alphamed_jax.config import PromptConfig
from alphamed_jax.data import control
from alphamed_jax.data.control import Written
from alphamed_jax.data.prompts import Prompt, encode_questions
from alphamed_jax.data.questions import Question
from alphamed_jax.data.shelf import question_json, question_of
from alphamed_jax.data.spill import Spill
from alphamed_jax.errors import UserError

_CHUNK = 512
# Longer than any prompt: here the limit is kept by what is asked, not by the renderer.
_ANY_LENGTH = 2**31 - 1


class Limits(NamedTuple):
    """How long a prompt may be, in tokens."""

    longest: int
    """That is asked."""
    room: int
    """That the model's context leaves to a prompt, beside its response."""


@dataclass(frozen=True)
class QuestionFile:
    """Questions with their prompts in a file that is gone when it is closed."""

    records: Spill
    """Of each the question, as JSON, and its prompt's tokens, of 4 bytes."""
    question_tokens: Int[np.ndarray, "n"]
    """Tokens of the question's text alone, by the model's tokenizer."""
    prompt_tokens: Int[np.ndarray, "n"]
    sources: dict[str, int]
    """Questions of each source."""
    not_asked: dict[str, int]
    """Reason -> questions."""
    fingerprint: str
    """SHA-256 over sources, ids, stems, options and answers of the questions, in their order."""
    prompts_digest: str
    """SHA-256 over all prompts."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> Prompt:
        """A question with its prompt, read from the file."""
        record, tokens = self.records[number], int(self.prompt_tokens[number])
        text = len(record) - 4 * tokens
        return Prompt(
            question_of(record[:text]), np.frombuffer(record, "<u4", offset=text).tolist()
        )

    def __iter__(self) -> Iterator[Prompt]:
        return map(self.__getitem__, range(len(self)))

    def __enter__(self) -> "QuestionFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.records.close()


def store_questions(
    tokenizer: Any, questions: Iterable[Question], prompt: PromptConfig, limits: Limits
) -> QuestionFile:
    """Render, tokenise and store questions, some hundred at a time.

    Prompts that are too long are never cut: they are not asked. The file lies where TMPDIR says.

    Raises:
      UserError: as `encode_questions`; every prompt is too long; no room for the file.
    """
    anything = dataclasses.replace(prompt, max_tokens=_ANY_LENGTH)
    texts, prompts = hashlib.sha256(), hashlib.sha256()
    question_tokens, prompt_tokens = array("q"), array("q")
    sources: Counter[str] = Counter()
    not_asked: Counter[str] = Counter()
    shortest, source, records = None, iter(questions), Spill()
    try:
        while chunk := list(islice(source, _CHUNK)):
            encoded, _ = encode_questions(tokenizer, chunk, anything)
            lengths = question_lengths(tokenizer, [one.question.stem for one in encoded])
            for one, length in zip(encoded, lengths, strict=True):
                size = len(one.token_ids)
                shortest = min(size, shortest or size)
                if reason := too_long(size, limits):
                    not_asked[reason] += 1
                    continue
                tokens = np.asarray(one.token_ids, "<u4").tobytes()
                records.append(question_json(one.question) + tokens)
                texts.update(_content(one.question))
                prompts.update(size.to_bytes(4, "little") + tokens)
                sources[one.question.source] += 1
                question_tokens.append(length)
                prompt_tokens.append(size)
        if not records:
            raise UserError(_nothing_to_ask(shortest, limits))
    except BaseException:
        records.close()
        raise
    return QuestionFile(
        records,
        question_tokens=np.array(question_tokens, np.int64),
        prompt_tokens=np.array(prompt_tokens, np.int64),
        sources=dict(sources),
        not_asked=dict(not_asked),
        fingerprint=texts.hexdigest(),
        prompts_digest=prompts.hexdigest(),
    )


def too_long(tokens: int, limits: Limits) -> str:
    """Why a prompt of so many tokens is not asked; empty: it is."""
    if tokens > limits.longest:
        return f"prompt longer than {limits.longest} tokens"
    return "prompt and response longer than the model's context" if tokens > limits.room else ""


def question_lengths(tokenizer: Any, stems: list[str]) -> list[int]:
    """Tokens of each question's text alone: without options, instruction and template."""
    written = [Written(stem, ((0, len(stem)),)) for stem in stems]
    return [len(ids) for ids in control.encode(tokenizer, written, add_special_tokens=False)]


def _content(question: Question) -> bytes:
    row = [question.source, question.id, question.stem, question.options, question.answer]
    return json.dumps(row).encode() + b"\n"


def _nothing_to_ask(shortest: int | None, limits: Limits) -> str:
    if shortest is None:
        return "no questions to score; give --data."
    advice = (
        f"raise --max-prompt-tokens above {limits.longest}"
        if limits.longest <= limits.room
        else f"lower --max-new-tokens: the model's context leaves {max(limits.room, 0)} to a prompt"
    )
    return f"every prompt is too long (the shortest has {shortest} tokens); {advice}."
