"""NAME.samples.jsonl: one response to one question a line, under the names that users of
lm-evaluation-harness know. All scores are made of these files, so they can be made again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphamed_jax.data.questions import Question
from alphamed_jax.data.rows import read_rows
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.sets import SetFacts


@dataclass(frozen=True)
class Sample:
    """One response and its score."""

    doc_id: int
    """Place of the question among those of its set."""
    question: Question
    prompt: str
    """Exactly as it was tokenised, special tokens written out."""
    sampling: dict[str, Any]
    """`temperature`, `max_new_tokens` and whatever else decided the response."""
    sample: int
    """Which of the question's responses it is, from 0."""
    response: str
    tokens: int | None
    """Of the response, the stop id included; None where somebody else's is scored."""
    truncated: bool | None
    """It reached the limit of tokens; None: nobody tells."""
    letter: str | None
    """What it answers by the rule in force; None: nothing."""
    reason: str
    """`ok`, or why there is no answer (`rl.answer`; `truncated` where it was cut before one)."""

    @property
    def right(self) -> bool:
        """Whether it gives the letter of the key."""
        return self.letter == self.question.answer


@dataclass(frozen=True)
class Scored:
    """A set of questions with all responses to them, ordered by question, then sample."""

    facts: SetFacts
    samples: list[Sample]


def to_row(sample: Sample) -> dict[str, Any]:
    """A line of the file."""
    question = sample.question
    doc = {
        "id": question.id,
        "question": question.stem,
        "options": list(question.options),
        "answer": question.answer,
        "source": question.source,
        **{f"meta_{key}": value for key, value in question.meta.items()},
    }
    return {
        "doc_id": sample.doc_id,
        "doc": doc,
        "target": question.answer,
        "arguments": {"gen_args_0": {"arg_0": sample.prompt, "arg_1": sample.sampling}},
        "resps": [[sample.response]],
        "filtered_resps": [sample.letter],
        "doc_hash": _digest(json.dumps(doc, indent=2, ensure_ascii=False, default=str)),
        "prompt_hash": _digest(sample.prompt),
        "target_hash": _digest(question.answer),
        "sample": sample.sample,
        "reason": sample.reason,
        "right": sample.right,
        "tokens": sample.tokens,
        "truncated": sample.truncated,
    }


def from_row(row: dict[str, Any]) -> Sample:
    """What `to_row` wrote.

    Raises:
      KeyError, TypeError, ValueError, UserError: it is no such line.
    """
    doc, arguments = row["doc"], row["arguments"]["gen_args_0"]
    question = Question(
        id=doc["id"],
        stem=doc["question"],
        options=tuple(doc["options"]),
        answer=doc["answer"],
        source=doc["source"],
        meta={key[5:]: value for key, value in doc.items() if key.startswith("meta_")},
    )
    return Sample(
        doc_id=row["doc_id"],
        question=question,
        prompt=arguments["arg_0"],
        sampling=arguments["arg_1"],
        sample=row["sample"],
        response=row["resps"][0][0],
        tokens=row["tokens"],
        truncated=row["truncated"],
        letter=row["filtered_resps"][0],
        reason=row["reason"],
    )


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write a file of samples; one that is there is replaced only when the new one is whole."""
    part = path.with_name(f".{path.name}.part")
    # Half of a UTF-16 pair, which a response may hold, becomes the escape that JSON has for it.
    with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for sample in samples:
            file.write(json.dumps(to_row(sample), ensure_ascii=False, default=str) + "\n")
    part.replace(path)


def read_samples(path: Path) -> list[Sample]:
    """Read a file of samples.

    Raises:
      UserError: names the line that is none.
    """
    samples = []
    for number, row in read_rows(path):
        try:
            samples.append(from_row(row))
        except (KeyError, TypeError, ValueError, IndexError, UserError) as error:
            raise UserError(
                f"{path}, line {number}: not a sample as `alphamed evaluate` writes them ({error})."
            ) from None
    return samples


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
