"""The questions of a benchmark as they are asked, and what a result says about them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from alphamed_jax.data.questions import Question


@dataclass(frozen=True)
class QuestionSet:
    """Questions of one benchmark, or of a changed form of them, in the order of their rows."""

    variant: str
    """Name that says which rows, as `pubmedqa-500-abstract`."""
    questions: tuple[Question, ...]
    """Their ids are distinct."""
    rows: int
    """Rows of the whole variant; more than questions where a sample was taken."""
    origin: str
    """Hub id, or file."""
    revision: str | None = None
    """Commit on the hub; None: a file, or nobody tells."""
    seed: int | None = None
    """Seed of the sample that `questions` are; None: they are all."""
    notes: dict[str, int] = field(default_factory=dict)
    """What was counted in the rows, in words: `rows that stand twice`, ..."""
    by: tuple[str, ...] = ()
    """Keys of `Question.meta` that sub-categories are told by."""
    change: str = ""
    """How the questions were changed, as `order=1`; empty: not at all."""

    @property
    def name(self) -> str:
        """Name of the set in files and requests, as `medqa-usmle-4@order=1`."""
        return f"{self.variant}@{self.change}" if self.change else self.variant


@dataclass(frozen=True)
class SetFacts:
    """What a result says of a set of questions besides its scores."""

    variant: str
    change: str
    rows: int
    questions: int
    """Of the set, whether or not they could be asked."""
    not_asked: dict[str, int]
    """Reason -> questions."""
    fingerprint: str
    """Of the questions that were asked, see `fingerprint`."""
    origin: str
    revision: str | None
    seed: int | None
    notes: dict[str, int]
    by: tuple[str, ...]

    @property
    def name(self) -> str:
        """As `QuestionSet.name`."""
        return f"{self.variant}@{self.change}" if self.change else self.variant


def facts(questions: QuestionSet, asked: Sequence[Question], not_asked: dict[str, int]) -> SetFacts:
    """What to say of a set of which `asked` were asked."""
    return SetFacts(
        variant=questions.variant,
        change=questions.change,
        rows=questions.rows,
        questions=len(questions.questions),
        not_asked=not_asked,
        fingerprint=fingerprint(asked),
        origin=questions.origin,
        revision=questions.revision,
        seed=questions.seed,
        notes=questions.notes,
        by=questions.by,
    )


def fingerprint(asked: Sequence[Question]) -> str:
    """SHA-256 over stems, options and answers of the questions, in their order.

    The prompt around them is left out, so that one model asked in two ways can be compared.
    """
    content = [[question.stem, question.options, question.answer] for question in asked]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
