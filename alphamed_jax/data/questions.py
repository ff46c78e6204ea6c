"""One multiple-choice question, and the rows of our own schema that questions are written in."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alphamed_jax.data.answer_key import (
    LETTERS,
    OutsideOptions,
    check_agreement,
    check_label,
    read_answer,
    read_options,
)
from alphamed_jax.data.labels import look_like_labels
from alphamed_jax.data.rows import EmptyField, MissingKey, Row, field_of, shown, text_field
from alphamed_jax.data.rows import read_rows as read_rows  # where callers have always found it
from alphamed_jax.errors import UserError

_UINT64 = 2**64 - 1
_READ = ("id", "question", "options", "answer", "source")
PROMPT_MESSAGES = "prompt_messages"
"""Key of `Question.meta`: messages {role, content} that are asked as they are. There they survive
whatever writes questions to a file and reads them back."""


@dataclass(frozen=True)
class Messages:
    """A prompt that is asked as it is: a system message, empty for none, and the user's."""

    system: str
    user: str


@dataclass(frozen=True)
class Question:
    """A multiple-choice question with one right option.

    Raises:
      UserError: blank text, fewer than 2 or more than 10 options, an answer beyond the options.
        The message names no file: whoever knows the row puts its place in front.
    """

    id: str
    stem: str
    options: tuple[str, ...]
    answer: str
    """Letter of the right option."""
    source: str
    meta: dict[str, Any] = field(default_factory=dict, compare=False)
    """Whatever else the row held (subject, number of hops, ...); never shown to the model, but for
    messages under `prompt_messages`."""

    def __post_init__(self) -> None:
        for name, text in (("id", self.id), ("question", self.stem)):
            _check_text(name, text)
        if not 2 <= len(self.options) <= len(LETTERS):
            raise UserError(
                f"{len(self.options)} options, expected 2 to {len(LETTERS)} ({LETTERS[0]} to "
                f"{LETTERS[-1]})"
            )
        letters = LETTERS[: len(self.options)]
        for letter, option in zip(letters, self.options, strict=True):
            _check_text(f"option {letter}", option)
        if len(self.answer) != 1 or self.answer not in letters:
            raise OutsideOptions(
                f"answer {self.answer!r} is outside the options, expected a letter "
                f"{letters[0]} to {letters[-1]}"
            )
        _ = self.messages  # refused where it cannot be asked

    @property
    def messages(self) -> Messages | None:
        """What is asked instead of our layout of stem and options, which stand in it."""
        kept = self.meta.get(PROMPT_MESSAGES)
        return None if kept is None else read_messages(kept, PROMPT_MESSAGES)

    @property
    def question(self) -> str:
        """The stem under the name that it has in files."""
        return self.stem

    @property
    def answer_index(self) -> int:
        """Position of the right option: 0 is A."""
        return LETTERS.index(self.answer)

    @property
    def options_look_like_labels(self) -> bool:
        """Whether an option begins as `C. difficile` does; then only a bare letter answers."""
        return look_like_labels(self.options)


def content_id(question: str, options: tuple[str, ...], answer: str) -> str:
    """Return a name made of the content alone, for rows without one and to find duplicates.

    It stays the same when rows of a file are reordered or added, which a row number does not.
    """
    content = json.dumps([question, options, answer])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def shuffle_options(question: Question, seed: int) -> Question:
    """Return the question with its options reordered; the answer letter moves with its option.

    The order depends on the seed and the question's id alone, not on the question's neighbours.
    """
    name = int.from_bytes(hashlib.sha256(question.id.encode()).digest()[:8], "big")
    # The raw stream of a NumPy bit generator never changes between versions; `permutation` may.
    key = np.array([seed & _UINT64, name], dtype=np.uint64)
    noise = np.random.Philox(key=key).random_raw(len(question.options))
    order = np.argsort(noise, kind="stable").tolist()
    return replace(
        question,
        options=tuple(question.options[old] for old in order),
        answer=LETTERS[order.index(question.answer_index)],
    )


def own_question(row: Row, source: str) -> Question:
    """Read a row of our own schema.

    `question`: text. `options`: a list, or a map from letter to text. `answer`: the letter, the
    index (0 is the first option) or the text of the right option. `id`: optional, text or number;
    without it the id is made of the content. `source`: optional, text (`source_of`).
    `prompt_messages`: optional, messages that are asked as they are. Every other key is kept in
    `meta`.

    Args:
      source: where the row is from if it does not say so itself.

    Raises:
      AmbiguousLabel: an answer that can be read in two ways.
      UserError: anything else.
    """
    try:
        question = text_field(row, "question")
        options, keyed = read_options(field_of(row, "options"))
        answer = read_answer(field_of(row, "answer"), options, keyed)
    except UserError as error:
        if all(key in row for key in ("question", "options", "answer")):
            raise
        message = f"{error} A file in the schema of a hub data set is NAME=FILE"
        raise MissingKey(message) from None
    name = row.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise UserError(f"'id' is {shown(name)}, expected text or a whole number")
    meta = {key: value for key, value in row.items() if key not in _READ}
    complete = Question(
        id=content_id(question, options, answer) if name is None else str(name),
        stem=question,
        options=options,
        answer=answer,
        source=source_of(row, "source", source),
        meta=meta,
    )
    check_label(options, answer)
    check_agreement(meta, options, answer)
    return complete


def source_of(row: Row, key: str, source: str) -> str:
    """Return what a row says of where it is from, else `source`.

    Raises:
      UserError: it says something other than text.
    """
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{key!r} is {shown(value)}, expected text")
    return " ".join((value or "").split()) or source


def read_messages(value: Any, key: str) -> Messages:
    """Return a list of {role, content}: the user's message, maybe after one of the system.

    Raises:
      UserError: other messages, or content that is not text.
    """
    expected = "expected the user's message, at most after one of the system"
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise UserError(f"{key!r} is {shown(value)}, expected a list of messages; {expected}")
    roles = [field_of(item, "role") for item in value]
    if roles not in (["user"], ["system", "user"]):
        raise UserError(
            f"{key!r} has messages of {', '.join(map(str, roles)) or 'none'}; {expected}"
        )
    for item in value:
        if not isinstance(field_of(item, "content"), str):
            raise UserError(
                f"{key!r}: the content of {item['role']} is {shown(item['content'])}, expected text"
            )
        if item["role"] == "user" or item["content"]:
            _check_text(f"the message of the {item['role']}", item["content"])
    return Messages(value[0]["content"] if len(value) > 1 else "", value[-1]["content"])


def _check_text(name: str, text: str) -> None:
    if not text.strip():
        raise EmptyField(f"{name} is empty, expected text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can spell half of a character (a lone surrogate); no tokenizer takes it.
        raise UserError(f"{name} holds half of a character (a lone surrogate)") from None
