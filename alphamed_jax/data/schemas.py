"""Rows of public data sets, as they stand on the hub or in a file of that schema.

A reader is asked for a row to learn from, of which it must be clear which option is right, or
(`strict=False`) for the row as it was published: a benchmark asks every row of its test and counts
the letter of the key, whatever one may think of the row.
"""

import re
from collections.abc import Mapping
from typing import Protocol

from alphamed_jax.data.answer_key import (
    LETTERS,
    AmbiguousLabel,
    OutsideOptions,
    check_agreement,
    check_label,
    option_map,
    same_text,
)
from alphamed_jax.data.questions import Question, content_id
from alphamed_jax.data.rows import Row, field_of, text_field
from alphamed_jax.errors import UserError

WRONG_TWICE = "wrong option given twice"
# What stands behind some options of MedQA: a line break and, mostly, a quotation mark.
_JUNK = re.compile(r"\s*\n[\s\"']*$")


class UnusableRow(Exception):
    """A row of a public data set that is in order but cannot be asked; counted, not an error."""


class EmptyRow(UnusableRow):
    """A row that lacks its question or an option."""


class OtherRow(UnusableRow):
    """A row of a data set that is not of the part that is asked for."""


class Reader(Protocol):
    """A function from a row of a public data set to its question."""

    def __call__(self, row: Row, source: str, strict: bool = True) -> Question:
        """Read a row.

        Args:
          strict: refuse a row whose right option is not clear (`AmbiguousLabel`, `UnusableRow`);
            False: as it was published.

        Raises:
          UnusableRow: it is in order but cannot be asked.
          UserError: it is malformed.
        """
        ...


def medmcqa(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of MedMCQA: `question`, `opa` to `opd`, `cop`.

    `cop` counts from 0 on the hub and from 1 in the data set's own repository. Rows of
    `choice_type` "multi" are kept: they too have four options and a single `cop`.

    Raises:
      AmbiguousLabel: an option stands twice (692 rows of the training split): the right one, so
        that two are right, or a wrong one, so that both can be told to be wrong.
    """
    correct = field_of(row, "cop")
    if correct == -1:
        raise OutsideOptions(
            "'cop' is -1: the answers of MedMCQA's test split are hidden, so it can be neither "
            "trained nor scored on; use its train or validation split"
        )
    if isinstance(correct, bool) or not isinstance(correct, int) or not 0 <= correct <= 3:
        raise OutsideOptions(
            f"'cop' is {correct!r}, expected 0 to 3 as on the hub (the files of MedMCQA's own "
            "repository count from 1: subtract 1)"
        )
    options = tuple(hub_text(row, key) for key in ("opa", "opb", "opc", "opd"))
    question = hub_question(
        row,
        source,
        question=hub_text(row, "question"),
        options=options,
        answer=LETTERS[correct],
        read=("cop",),
        name="id",
        meta=("subject_name", "topic_name", "choice_type"),
        strict=strict,
    )
    if strict and len(set(map(same_text, options))) < len(options):
        raise AmbiguousLabel("two options say the same, so both are wrong", WRONG_TWICE)
    return question


def medqa(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of MedQA (USMLE, 4 options): `question`, `options`, `answer_idx`, `answer`.

    Some options end in a line break and a stray quotation mark; these are taken off.
    """
    options = field_of(row, "options")
    if not isinstance(options, Mapping):
        raise UserError("'options' is not a letter -> text map, as MedQA has")
    texts = tuple(_JUNK.sub("", text) for text in option_map(options))
    question = hub_question(
        row,
        source,
        question=hub_text(row, "question"),
        options=texts,
        answer=text_field(row, "answer_idx"),
        read=("answer_idx", "answer"),
        meta=("meta_info",),
        strict=strict,
    )
    answer, right = row.get("answer"), texts[question.answer_index]
    if strict and isinstance(answer, str) and same_text(_JUNK.sub("", answer)) != same_text(right):
        raise UnusableRow("answer text and answer letter disagree")
    return question


def hub_question(
    row: Row,
    source: str,
    *,
    question: str,
    options: tuple[str, ...],
    answer: str,
    read: tuple[str, ...],
    name: str | None = None,
    meta: tuple[str, ...] = (),
    strict: bool = True,
) -> Question:
    """Return a question whose id is `row[name]`, or made of its content.

    Args:
      read: the keys that the answer was read from.
      meta: the keys that are kept.
      strict: whether it must be clear which option is right.

    Raises:
      AmbiguousLabel: it is not clear which option is right.
      UserError: as `Question`.
    """
    found = None if name is None else row.get(name)
    complete = Question(
        id=content_id(question, options, answer) if found is None else str(found),
        stem=question,
        options=options,
        answer=answer,
        source=source,
        meta={key: row[key] for key in meta if row.get(key) is not None},
    )
    if strict:
        check_label(options, answer)
        check_agreement({key: row[key] for key in row if key not in read}, options, answer)
    return complete


def hub_text(row: Row, key: str) -> str:
    """Return the text of a public row; nobody can mend an empty one there, so it is counted."""
    if field_of(row, key) is None or not text_field(row, key):
        raise EmptyRow("empty question or option")
    return text_field(row, key)
