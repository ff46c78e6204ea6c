"""MedXpertQA's questions without images (Zuo et al. 2025, arXiv 2501.18362)."""

import re
from collections.abc import Mapping
from typing import Any

from alphamed_jax.data.answer_key import LETTERS, AmbiguousLabel, option_map, same_text
from alphamed_jax.data.questions import Question
from alphamed_jax.data.rows import Row, field_of, shown, text_field
from alphamed_jax.data.schemas import hub_question, hub_text
from alphamed_jax.errors import UserError

_CHOICES = re.compile(r"\s*Answer Choices:\s*(?=\(A\))")


def medxpertqa(row: Row, source: str, strict: bool = True) -> Question:
    """Read a row of MedXpertQA: `question`, `options`, `label`.

    The text of the question ends with the options, "Answer Choices: (A) ... (B) ...". That part is
    taken off, for the prompt shows the options itself.

    Raises:
      AmbiguousLabel: the text ends with other options than `options` has.
      UserError: a malformed row.
    """
    options = _options(field_of(row, "options"))
    text, choices = _parted(hub_text(row, "question"))
    listed = " ".join(
        f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)
    )
    if strict and choices and same_text(choices) != same_text(listed):
        raise AmbiguousLabel(
            "'question' ends with other options than 'options' has: which count is not known",
            "options in the question's text that differ",
        )
    return hub_question(
        row,
        source,
        question=text,
        options=options,
        answer=text_field(row, "label"),
        read=("label",),
        name="id",
        meta=("medical_task", "body_system", "question_type"),
        strict=strict,
    )


def _parted(text: str) -> tuple[str, str]:
    """The question, and the options that its text ends with."""
    found = list(_CHOICES.finditer(text))
    return (text[: found[-1].start()], text[found[-1].end() :]) if found else (text, "")


def _options(value: Any) -> tuple[str, ...]:
    """The options of a letter -> text map or of a list of {letter, content}."""
    if isinstance(value, Mapping):
        if set(value) != {"letter", "content"}:
            return option_map(value)
        pairs = list(zip(value["letter"], value["content"], strict=False))
    else:
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise UserError(
                f"'options' is {shown(value)}, expected a letter -> text map, or a list of "
                "{letter, content}"
            )
        pairs = [(field_of(item, "letter"), field_of(item, "content")) for item in value]
    texts = dict(pairs)
    if len(texts) < len(pairs):
        raise UserError(f"'options' is {shown(value)}, in which a letter stands twice")
    return option_map(texts)
