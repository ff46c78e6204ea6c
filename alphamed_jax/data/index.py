"""What questions are compared by, as digests: two that have one digest are alike in that respect.

The rules of `sift` and `combine` look at these, not at the questions, so that a rule needs some
100 bytes of memory a question, whatever its length and wherever it lies.
"""

import hashlib
import json
import re
from array import array
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from alphamed_jax.data.answer_key import same_text
from alphamed_jax.data.order import twin_key
from alphamed_jax.data.questions import Question
from alphamed_jax.data.shelf import Found, Shelf

# Below so many words a question's text alone does not make it the same question: many of MedMCQA's
# read "Which of the following is true?". Our choice.
TELLING_WORDS = 8

Numbers = Int[np.ndarray, " _"]
"""Questions of a shelf, by their numbers."""
_DIGEST = "S16"
_DIGESTS = ("content", "asked", "twin", "twin_content", "id")
KEYS = np.dtype([*((name, _DIGEST) for name in _DIGESTS), ("telling", "?")])
"""What is kept of a question:

content: text, options in their order and answer; exact repeats share it.
asked: text but for punctuation at which questions never differ, and options in any order.
twin: letters and digits of the text, see `twin_key`.
twin_content: the same, and options in any order.
telling: whether the text alone makes it the same question.
"""


def keys_of(question: Question) -> bytes:
    """Return one record of `KEYS`."""
    options = sorted(set(map(same_text, question.options)))
    twin = twin_key(question.stem)
    digests = (
        _digest(question.stem, question.options, question.answer),
        _digest(_asked(question.stem), options),
        _digest(twin),
        _digest(twin, options),
        _digest(question.id),
    )
    return b"".join(digests) + bytes([len(question.stem.split()) >= TELLING_WORDS])


class Index:
    """The keys of the questions on a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        """`shelf`: an empty one, to which the questions go."""
        self.shelf = shelf
        self._keys = bytearray()
        self._sources: dict[str, int] = {}
        self._source = array("I")

    def add(self, found: Found) -> None:
        """Put a question on the shelf."""
        self._keys += keys_of(found.question)
        self._source.append(self._sources.setdefault(found.question.source, len(self._sources)))
        self.shelf.append(found)

    def of(self, key: str, numbers: Numbers) -> Shaped[np.ndarray, " _"]:
        """One of the `KEYS` of some questions."""
        return np.frombuffer(self._keys, KEYS)[key][numbers]

    @property
    def sources(self) -> list[str]:
        """Every source that a question was read with."""
        return list(self._sources)

    def source(self, numbers: Numbers) -> Numbers:
        """Where the source of some questions stands in `sources`."""
        return np.frombuffer(self._source, np.uintc)[numbers].astype(np.int32)

    def __len__(self) -> int:
        return len(self.shelf)


def _digest(*parts: Any) -> bytes:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def _asked(text: str) -> str:
    """The text without what never tells two questions apart; `<`, `+` or `-` within it may."""
    plain = same_text(text).casefold()
    return " ".join(re.sub("[?!:;\"'()\u2018\u2019\u201c\u201d\\[\\]]", "", plain).split()).rstrip(
        "., "
    )
