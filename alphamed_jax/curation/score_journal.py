"""The journal of a scoring: one record of fixed size for each question whose responses have ended.

Records are appended by process 0 and handed to the operating system at once, so that a killed
scoring goes on; what a crash of the machine takes with it is sampled again, to the same tokens.
Text is not kept: 200,000 questions are 6 MB.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alphamed_jax.errors import UserError

NAME = "journal.bin"
_FIELDS = [("question", "<u4"), ("passes", "<u4"), ("no_answer", "<u4"), ("truncated", "<u4")]
RECORD = np.dtype([*_FIELDS, ("tokens", "<u8")])
"""What is kept of a question."""
_WRITTEN = np.dtype([("record", RECORD), ("check", "<u4")])


class Counts(NamedTuple):
    """What was counted in the responses to a question."""

    question: int
    """Its number among those that are scored."""
    passes: int
    """Right responses."""
    no_answer: int
    """Responses that no letter can be read from."""
    truncated: int
    """Responses that were cut at the limit of new tokens."""
    tokens: int
    """Of all its responses together."""


def read_journal(folder: Path, questions: int) -> tuple[np.ndarray, int]:
    """The records of a folder; bytes after the last whole one are taken out of the file.

    Args:
      questions: how many are scored.

    Returns:
      An array of `RECORD`, in the order in which they were written, and how many bytes behind
      them were damaged.

    Raises:
      UserError: a record of a question that is not there, or a second one of one question.
    """
    path = folder / NAME
    if not path.exists():
        return np.zeros(0, RECORD), 0
    data = path.read_bytes()
    rows = np.frombuffer(data, _WRITTEN, count=len(data) // _WRITTEN.itemsize)
    # A crash of the machine may leave a file that is longer than what was written to it.
    good = [zlib.crc32(row["record"].tobytes()) == row["check"] for row in rows]
    whole = len(good) if all(good) else good.index(False)
    records, damaged = rows["record"][:whole].copy(), len(data) - whole * _WRITTEN.itemsize
    numbers = records["question"]
    if len(numbers) and (numbers.max() >= questions or len(np.unique(numbers)) < len(numbers)):
        raise UserError(f"{path}: not the journal of these questions; delete it to start over.")
    if damaged:
        with path.open("r+b") as file:
            file.truncate(whole * _WRITTEN.itemsize)
    return records, damaged


class ScoreJournal:
    """Appends to the journal of a folder; in processes that do not write it does nothing."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        """Open it; the folder is there."""
        # Without a buffer of its own, so that nothing is left to write when the disk is full.
        self._file = (folder / NAME).open("ab", buffering=0) if enabled else None

    def add(self, counts: Counts) -> None:
        """Write a question down.

        Raises:
          OSError: the disk is full, say; what was written before stays.
        """
        if self._file is None:
            return
        record = as_records([counts])
        left = record.tobytes() + np.uint32(zlib.crc32(record.tobytes())).astype("<u4").tobytes()
        while left:
            left = left[self._file.write(left) or 0 :]

    def __enter__(self) -> "ScoreJournal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def as_records(counts: Iterable[Counts]) -> np.ndarray:
    """An array of `RECORD`."""
    return np.array([tuple(one) for one in counts], RECORD)
