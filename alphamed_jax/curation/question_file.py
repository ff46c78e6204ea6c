"""Questions and their prompts on disk while they are scored: only an index of them is in memory.

200,000 questions with their prompts are some 400 MB; their index, 32 bytes each, is 6 MB.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Int

from alphamed_jax.config import PromptConfig
from alphamed_jax.data import control
from alphamed_jax.data.control import Written
from alphamed_jax.data.prompts import Prompt, encode_questions
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError, of_the_machine

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
    """Questions in a file that nobody else sees, which is gone when it is closed."""

    file: IO[bytes]
    starts: Int[np.ndarray, "n"]
    """Byte at which each begins."""
    text_bytes: Int[np.ndarray, "n"]
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
        return len(self.starts)

    def __getitem__(self, number: int) -> Prompt:
        """A question with its prompt, read from the file."""
        text, tokens = int(self.text_bytes[number]), int(self.prompt_tokens[number])
        data = os.pread(self.file.fileno(), text + 4 * tokens, int(self.starts[number]))
        row = json.loads(data[:text])
        return Prompt(
            Question(**{**row, "options": tuple(row["options"])}),
            np.frombuffer(data, "<u4", offset=text).tolist(),
        )

    def __iter__(self) -> Iterator[Prompt]:
        return map(self.__getitem__, range(len(self)))

    def __enter__(self) -> "QuestionFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


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
    columns = {"starts": array("q"), "text_bytes": array("q")}
    columns |= {"question_tokens": array("q"), "prompt_tokens": array("q")}
    sources: Counter[str] = Counter()
    not_asked: Counter[str] = Counter()
    shortest, at, source = None, 0, iter(questions)
    # Handed over to the caller, who closes it.
    file = tempfile.TemporaryFile(prefix="alphamed_jax-questions-")  # noqa: SIM115
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
                text, tokens = _as_json(one.question), np.asarray(one.token_ids, "<u4").tobytes()
                file.write(text + tokens)
                texts.update(_content(one.question))
                prompts.update(size.to_bytes(4, "little") + tokens)
                sources[one.question.source] += 1
                for name, value in zip(columns, (at, len(text), length, size), strict=True):
                    columns[name].append(value)
                at += len(text) + len(tokens)
        file.flush()
    except OSError as error:
        file.close()
        if (reason := of_the_machine(error)) is None:
            raise
        raise UserError(
            f"{tempfile.gettempdir()}: {reason} The questions are kept there while they are "
            "scored; set TMPDIR to a folder with more room."
        ) from None
    except BaseException:
        file.close()
        raise
    if not at:
        file.close()
        raise UserError(_nothing_to_ask(shortest, limits))
    return QuestionFile(
        file,
        **{name: np.array(column, np.int64) for name, column in columns.items()},
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


def _as_json(question: Question) -> bytes:
    # Rows of parquet may hold dates, which JSON writes as text.
    return json.dumps(vars(question), default=str).encode()


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
