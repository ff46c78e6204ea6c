"""What of the rows that were read is left out, and why: functions on the index of the questions.

Each takes the numbers of questions and returns those that stay; who calls them counts the others.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Shaped

from alphamed_jax.data.answer_key import same_text
from alphamed_jax.data.index import KEYS, Index, Numbers, keys_of
from alphamed_jax.data.questions import Question
from alphamed_jax.data.shelf import Found
from alphamed_jax.errors import UserError

# A file whose indices are never 0 is refused where by chance that would happen so rarely. Ours.
UNLIKELY = 0.05


def distinct(index: Index, found: Numbers) -> Numbers:
    """Leave out exact repeats: the first of each stays."""
    order, again = _sorted(index.of("content", found))
    return found[np.sort(order[~again])]


def without_contradictions(index: Index, found: Numbers) -> Numbers:
    """Leave out questions that have the same text and options as another, but another answer.

    Raises:
      UserError: one of them is of our own schema.
    """
    several = _repeated(index.of("asked", found))
    groups: dict[bytes, list[int]] = {}
    for at, key in zip(several.tolist(), index.of("asked", found[several]).tolist(), strict=True):
        groups.setdefault(key, []).append(at)
    stays = np.ones(len(found), bool)
    for places in groups.values():
        alike = [index.shelf[int(found[at])] for at in places]
        if len(set(map(_right, alike))) > 1:
            _refuse_own(alike)
            stays[places] = False
    return found[stays]


def _refuse_own(group: list[Found]) -> None:
    own = next((item for item in reversed(group) if item.own), None)
    if own:
        other = next(item for item in group if _right(item) != _right(own))
        raise UserError(
            f"{own.place}: the same question and options have another answer at "
            f"{other.place} ({other.question.options[other.question.answer_index]!r}, here "
            f"{own.question.options[own.question.answer_index]!r}); keep the right one"
        )


def check_ids(index: Index, found: Numbers) -> None:
    """Refuse two questions with one id.

    Raises:
      UserError: names both places.
    """
    found = found[_repeated(index.of("id", found))]
    ids = index.of("id", found)
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    for at in np.flatnonzero(first[which] != np.arange(len(found))).tolist():
        item, other = (index.shelf[int(found[place])] for place in (at, first[which[at]]))
        raise UserError(
            f"{item.place}: id {item.question.id!r} is taken by another question, at "
            f"{other.place}; give each question an id of its own, or none"
        )


def check_counts_from_zero(where: str, key: str, indices: Mapping[tuple[int, int], int]) -> None:
    """Refuse a file whose answers are indices of which none is 0: it counts from 1, it seems.

    A file that counts from 1 and never holds the highest index has none beyond the options, so
    only the missing 0 tells.

    Args:
      where: the file.
      key: where the indices stand.
      indices: (index, number of options) -> rows that have both.

    Raises:
      UserError: no 0 in so many rows that it is no chance, or each index but 0.
    """
    values = {index for index, _ in indices}
    chance = 1.0
    for (_, options), count in indices.items():
        chance *= (1 - 1 / options) ** count
    rows = sum(indices.values())
    widest = max((options for _, options in indices), default=0)
    every_other = values == set(range(1, widest)) and widest > 2 and rows > 2
    constant = len(values) == 1 and 1 not in values  # says nothing of where the counting begins
    if 0 not in values and not constant and (every_other or chance < UNLIKELY):
        raise UserError(
            f"{where}: {key!r} holds {', '.join(map(str, sorted(values)))} and never 0 in "
            f"{rows} rows: it seems to count from 1, but indices count from 0; subtract 1 "
            "where it does, or give letters"
        )


class Texts:
    """The texts of a published test, by which its rows are found among others."""

    def __init__(self, questions: Iterable[Question]) -> None:
        keys = np.frombuffer(b"".join(map(keys_of, questions)), KEYS)
        self._contents, self._telling = keys["twin_content"], keys["twin"][keys["telling"]]

    def among(self, index: Index, found: Numbers) -> Bool[np.ndarray, " _"]:
        """Whether questions are of them but for punctuation, case and the options' order."""
        telling = index.of("telling", found) & np.isin(index.of("twin", found), self._telling)
        return telling | np.isin(index.of("twin_content", found), self._contents)


def shared_id(index: Index, found: Numbers, prefix: Numbers) -> tuple[int, int] | None:
    """Return the first question whose id several have, and how many; None where there is none.

    Args:
      prefix: which prefix the id of each gets; ids with different ones are different.
    """
    several = _repeated(index.of("id", found))
    found, prefix = found[several], prefix[several]
    _, ids = np.unique(index.of("id", found), return_inverse=True)
    _, first, which, size = np.unique(
        ids * (1 + prefix.max(initial=0)) + prefix,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    shared = first[size > 1]
    if not len(shared):
        return None
    at = shared.min()
    return int(found[at]), int(size[which[at]])


def _repeated(keys: Shaped[np.ndarray, " _"]) -> Numbers:
    """The places of keys that stand in several, in their order."""
    order, again = _sorted(keys)
    repeats = np.flatnonzero(again)
    return np.union1d(order[repeats], order[repeats - 1])


def _sorted(keys: Shaped[np.ndarray, " _"]) -> tuple[Numbers, Bool[np.ndarray, " _"]]:
    """The places of keys in their order, and of each whether its key is that of the one before.

    Places of one key ascend. Takes half the memory of np.unique.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    again = np.zeros(len(keys), bool)
    np.equal(ordered[1:], ordered[:-1], out=again[1:])
    return order, again


def _right(item: Found) -> str:
    return same_text(item.question.options[item.question.answer_index])
