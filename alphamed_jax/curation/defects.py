"""What is wrong with the rows of a set, those that no run would take included.

A run refuses a row whose answer is outside its options and stops there; here it is one finding
among others, and the rest is read.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ftfy.badness import is_bad

from alphamed_jax.data.answer_key import TWICE, AmbiguousLabel, OutsideOptions, same_text
from alphamed_jax.data.combine import OFFICIAL_TEST
from alphamed_jax.data.questions import Question
from alphamed_jax.data.rows import EmptyField, MissingKey, Row
from alphamed_jax.data.schemas import EmptyRow, OtherRow, UnusableRow
from alphamed_jax.data.sift import check_counts_from_zero
from alphamed_jax.data.sources import raw_rows
from alphamed_jax.errors import UserError

REPEATED_OPTIONS = "repeated_options"
OUTSIDE_OPTIONS = "answer_outside_options"
EMPTY_FIELD = "empty_field"
MOJIBAKE = "mojibake"
UNCLEAR_ANSWER = "unclear_answer"
UNREADABLE = "unreadable"
KINDS = {
    REPEATED_OPTIONS: "two options say the same",
    OUTSIDE_OPTIONS: "the answer is none of the options",
    EMPTY_FIELD: "no question, an option or the answer is empty",
    MOJIBAKE: "text decoded as another encoding than it was written in",
    UNCLEAR_ANSWER: "the right option can be read in two ways",
    UNREADABLE: "anything else for which a run refuses the row",
}
"""Kind of a defect -> what it is."""


@dataclass(frozen=True, slots=True)
class Defect:
    """Something wrong with one row."""

    kind: str
    detail: str
    place: str
    source: str
    id: str | None
    """None: the row could not be read."""


@dataclass
class Rows:
    """What was read of one source."""

    name: str
    spec: str
    questions: list[Question] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """Of the questions."""
    defects: list[Defect] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> rows that are in order but not trained on."""
    left_out_at: list[tuple[str, str]] = field(default_factory=list)
    """(place, reason) of these."""
    rows: int = 0
    warnings: list[str] = field(default_factory=list)
    revision: str | None = None


def read_all(spec: str, revision: str | None = None) -> Rows:
    """Read every row of a source, given as for `train --data`.

    Raises:
      UserError: an unknown source, a file that cannot be read, or without the columns.
    """
    raw = raw_rows(spec, revision)
    source = raw.source
    found = Rows(source.name, spec)
    indices: Counter[tuple[int, int]] = Counter()
    for where, row in raw.rows:
        found.rows += 1
        question = None
        try:
            if source.official and source.official(row):
                _leave_out(found, where, OFFICIAL_TEST)
                continue
            question = source.convert(row, source.name)
        except OtherRow as reason:
            _leave_out(found, where, str(reason))
            continue
        except (UserError, UnusableRow) as error:
            if isinstance(error, MissingKey) and found.rows == 1:
                raise UserError(f"{where}: {error}") from None
            kind = _kind(error)
            found.defects.append(Defect(kind, str(error), where, source.name, _id(row)))
        else:
            found.questions.append(question)
            found.places.append(where)
            index = row.get(source.index or "")
            if isinstance(index, int) and not isinstance(index, bool):
                indices[index, len(question.options)] += 1
        for kind, detail in _of_texts(question, row):
            name = question.id if question else _id(row)
            found.defects.append(Defect(kind, detail, where, source.name, name))
    if source.index:
        try:
            check_counts_from_zero(str(raw.file or spec), source.index, indices)
        except UserError as error:
            found.warnings.append(str(error))
    found.revision = raw.read.revisions.get(source.name)
    return found


def _leave_out(found: Rows, where: str, reason: str) -> None:
    found.left_out[reason] += 1
    found.left_out_at.append((where, reason))


def _kind(error: Exception) -> str:
    if isinstance(error, AmbiguousLabel):
        return REPEATED_OPTIONS if error.reason == TWICE else UNCLEAR_ANSWER
    if isinstance(error, OutsideOptions):
        return OUTSIDE_OPTIONS
    if isinstance(error, EmptyField | EmptyRow):
        return EMPTY_FIELD
    return UNCLEAR_ANSWER if isinstance(error, UnusableRow) else UNREADABLE


def _of_texts(question: Question | None, row: Row) -> Iterator[tuple[str, str]]:
    """Yield (kind, detail) of what the texts themselves show."""
    texts = [question.stem, *question.options] if question else list(_texts(row))
    bad = next((text for text in texts if is_mojibake(text)), None)
    if bad is not None:
        yield MOJIBAKE, f"{bad[:80]!r}"
    if question:
        repeated = [text for text, n in Counter(map(same_text, question.options)).items() if n > 1]
        if repeated:
            yield REPEATED_OPTIONS, f"{repeated[0]!r} stands twice among the options"


def is_mojibake(text: str) -> bool:
    """Whether a text was decoded as another encoding than it was written in, as `Â°C` for `°C`.

    By ftfy's measure of sequences that no language has, or the sign that stands for bytes which
    could not be decoded.
    """
    return not text.isascii() and ("\ufffd" in text or is_bad(text))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _id(row: Row) -> str | None:
    """What a row that cannot be read calls itself."""
    found = next((row[key] for key in ("id", "pubid", "question_id") if row.get(key)), None)
    return None if found is None else str(found)
