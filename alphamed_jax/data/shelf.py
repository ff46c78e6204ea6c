"""Where questions lie once they are read: in memory for training, in a file for scoring."""

import json
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from alphamed_jax.data.questions import Question
from alphamed_jax.data.spill import Spill


@dataclass(frozen=True)
class Found:
    """A question, and where it was read."""

    question: Question
    place: str
    own: bool
    """Whether it is of our own schema: whoever wrote the row can mend it."""


@runtime_checkable
class Shelf(Protocol):
    """Questions by the number in which they were read, from 0; a list is one."""

    def append(self, found: Found, /) -> None: ...

    def __getitem__(self, number: int, /) -> Found: ...

    def __len__(self) -> int: ...


class FoundFile:
    """A shelf in a file that is gone when it is closed; use it in a `with` block.

    Memory holds 8 bytes of each question. What JSON does not know among the other keys of a row, as
    the dates of a parquet file, comes back as text.
    """

    def __init__(self) -> None:
        """Begin an empty one.

        Raises:
          UserError: as `Spill`.
        """
        self._records = Spill()

    def append(self, found: Found, /) -> None:
        """Write one down.

        Raises:
          UserError: as `Spill`.
        """
        where = json.dumps([found.place, found.own]).encode()
        self._records.append(where + b"\n" + question_json(found.question))

    def __getitem__(self, number: int, /) -> Found:
        """Read one back."""
        where, _, question = self._records[number].partition(b"\n")
        return Found(question_of(question), *json.loads(where))

    def __len__(self) -> int:
        return len(self._records)

    def __enter__(self) -> "FoundFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._records.close()


def question_json(question: Question) -> bytes:
    """All of a question, on one line."""
    # Rows of parquet may hold dates, which JSON writes as text.
    return json.dumps(vars(question), default=str).encode()


def question_of(text: bytes) -> Question:
    """The question that `question_json` wrote."""
    row = json.loads(text)
    return Question(**{**row, "options": tuple(row["options"])})
