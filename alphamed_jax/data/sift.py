"""What of the rows that were read is left out, and why: pure functions on questions.

Each takes questions and returns those that stay; who calls them counts the others.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alphamed_jax.data.answer_key import same_text
from alphamed_jax.data.order import twin_key
from alphamed_jax.data.questions import Question, content_id
from alphamed_jax.errors import UserError

# Below so many words a question's text alone does not make it the same question: many of MedMCQA's
# read "Which of the following is true?". Our choice.
TELLING_WORDS = 8
# A file whose indices are never 0 is refused where by chance that would happen so rarely. Ours.
UNLIKELY = 0.05


@dataclass(frozen=True)
class Found:
    """A question, and where it was read."""

    question: Question
    place: str
    own: bool
    """Whether it is of our own schema: whoever wrote the row can mend it."""
    origin: tuple[str, str] | None = None
    """Data set and id of the row, where sources share their rows, as those with and without
    abstract do."""


def distinct(found: Sequence[Found]) -> list[Found]:
    """Leave out exact repeats: the first of each stays."""
    first: dict[str, Found] = {}
    for item in found:
        first.setdefault(content_id(*_content(item.question)), item)
    return list(first.values())


def without_contradictions(found: Sequence[Found]) -> list[Found]:
    """Leave out questions that have the same text and options as another, but another answer.

    Raises:
      UserError: one of them is of our own schema.
    """
    by_text: dict[str, list[Found]] = {}
    for item in found:
        by_text.setdefault(_asked(item.question), []).append(item)
    groups: dict[tuple[str, frozenset[str]], list[Found]] = {}
    for text, items in by_text.items():
        for item in items if len(items) > 1 else ():
            options = frozenset(map(same_text, item.question.options))
            groups.setdefault((text, options), []).append(item)
    bad: set[int] = set()
    for group in groups.values():
        if len({_right(item) for item in group}) > 1:
            bad.update(map(id, group))
            own = next((item for item in reversed(group) if item.own), None)
            if own:
                other = next(item for item in group if _right(item) != _right(own))
                raise UserError(
                    f"{own.place}: the same question and options have another answer at "
                    f"{other.place} ({other.question.options[other.question.answer_index]!r}, here "
                    f"{own.question.options[own.question.answer_index]!r}); keep the right one"
                )
    return [item for item in found if id(item) not in bad]


def check_ids(found: Sequence[Found]) -> None:
    """Refuse two questions with one id.

    Raises:
      UserError: names both places.
    """
    places: dict[str, str] = {}
    for item in found:
        name = item.question.id
        if name in places:
            raise UserError(
                f"{item.place}: id {name!r} is taken by another question, at {places[name]}; give "
                "each question an id of its own, or none"
            )
        places[name] = item.place


def check_counts_from_zero(where: str, key: str, indices: Sequence[tuple[int, int]]) -> None:
    """Refuse a file whose answers are indices of which none is 0: it counts from 1, it seems.

    A file that counts from 1 and never holds the highest index has none beyond the options, so
    only the missing 0 tells.

    Args:
      where: the file.
      key: where the indices stand.
      indices: (index, number of options) of each row that has an index.

    Raises:
      UserError: no 0 in so many rows that it is no chance, or each index but 0.
    """
    values = {index for index, _ in indices}
    chance = 1.0
    for _, options in indices:
        chance *= 1 - 1 / options
    widest = max((options for _, options in indices), default=0)
    every_other = values == set(range(1, widest)) and widest > 2 and len(indices) > 2
    constant = len(values) == 1 and 1 not in values  # says nothing of where the counting begins
    if 0 not in values and not constant and (every_other or chance < UNLIKELY):
        raise UserError(
            f"{where}: {key!r} holds {', '.join(map(str, sorted(values)))} and never 0 in "
            f"{len(indices)} rows: it seems to count from 1, but indices count from 0; subtract 1 "
            "where it does, or give letters"
        )


class Texts:
    """The texts of a published test, by which its rows are found among others."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self._keys: set[str | tuple[str, frozenset[str]]] = set()
        for question in questions:
            self._keys.add(twin_content(question))
            if _telling(question):
                self._keys.add(twin_key(question.stem))

    def hold(self, question: Question) -> bool:
        """Whether a question is one of them but for punctuation, case and the options' order."""
        telling = _telling(question) and twin_key(question.stem) in self._keys
        return telling or twin_content(question) in self._keys


def twin_content(question: Question) -> tuple[str, frozenset[str]]:
    """Return what near-twins with the same options share, whatever the options' order."""
    return twin_key(question.stem), frozenset(map(same_text, question.options))


def shared_ids(questions: Sequence[Question]) -> str | None:
    """Return a message on an id that several of the questions have, or None."""
    for name, count in Counter(question.id for question in questions).items():
        if count > 1:
            return (
                f"the id {name!r} belongs to {count} different questions of the given data; "
                "give each question an id of its own, or none"
            )
    return None


def _content(question: Question) -> tuple[str, tuple[str, ...], str]:
    return question.stem, question.options, question.answer


def _asked(question: Question) -> str:
    """The text without what never tells two questions apart; `<`, `+` or `-` within it may."""
    plain = same_text(question.stem).casefold()
    return " ".join(re.sub("[?!:;\"'()\u2018\u2019\u201c\u201d\\[\\]]", "", plain).split()).rstrip(
        "., "
    )


def _right(item: Found) -> str:
    return same_text(item.question.options[item.question.answer_index])


def _telling(question: Question) -> bool:
    return len(question.stem.split()) >= TELLING_WORDS
