"""Recipes: how many questions of which source and level a training set takes, and in which order.

A recipe is a name for some parts; flags make one part of their own. Which questions are taken is
drawn by seed and content: neither the order of a file nor the other questions change it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from alphamed_jax.curation.levels import LEVELS, level_name
from alphamed_jax.errors import UserError, nearest
from alphamed_jax.text import count

Order = Literal["random", "longest", "shortest"]


@dataclass(frozen=True)
class Part:
    """Questions of some sources; of all their questions where no number is given."""

    source: str | None = None
    """None: each source that there is."""
    per_level: int | None = None
    """Of each level of each source."""
    per_source: int | None = None
    order: Order = "random"
    """Which come first where not all are taken."""


@dataclass(frozen=True)
class Recipe:
    """Parts under a name."""

    words: str
    parts: tuple[Part, ...]


RECIPES = {
    "balanced": Recipe(
        "200 questions of each level, 1,200 of each source, as in AlphaMed's ablations",
        (Part(per_level=200),),
    ),
    "alphamed19k-like": Recipe(
        "all questions of medqa and 1,500 of each level of medmcqa, as AlphaMed19K was mixed",
        (Part("medqa"), Part("medmcqa", per_level=1500)),
    ),
    "longest": Recipe(
        "the 1,200 longest questions of each source, which are the most informative ones",
        (Part(per_source=1200, order="longest"),),
    ),
}


class Candidates(NamedTuple):
    """Questions to take from, one element each."""

    sources: Sequence[str]
    ids: Sequence[str]
    levels: Int[np.ndarray, "n"]
    question_tokens: Int[np.ndarray, "n"]


class Lack(NamedTuple):
    """What a part wants and there is not."""

    source: str
    level: int | None
    """None: of any level."""
    wanted: int
    there: int

    def said(self) -> str:
        """In words."""
        if self.level is None and not self.there:
            return f"there is no question of {self.source}"
        where = self.source if self.level is None else f"{self.source} {level_name(self.level)}"
        return f"{where} lacks {self.wanted - self.there:,} of {self.wanted:,}"


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
      UserError: there is none; names the nearest.
    """
    if name not in RECIPES:
        raise UserError(
            f"--recipe {name}: no such recipe.{nearest(name, RECIPES)} There are "
            f"{', '.join(RECIPES)}."
        )
    return RECIPES[name]


def take(
    parts: Sequence[Part],
    candidates: Candidates,
    seed: int,
    levels: Sequence[int] = LEVELS,
) -> tuple[list[int], list[Lack]]:
    """Take questions as the parts say.

    Args:
      levels: those that are wanted at all.

    Returns:
      Indices of the candidates that are taken, ascending, each once; and what lacks.
    """
    by_source: dict[str, list[int]] = {}
    for index, source in enumerate(candidates.sources):
        by_source.setdefault(source, []).append(index)
    taken: set[int] = set()
    lacks: list[Lack] = []
    for part in parts:
        sources = list(by_source) if part.source is None else [part.source]
        for source in sources:
            ordered = _ordered(by_source.get(source, []), candidates, part.order, seed)
            if not ordered:
                lacks.append(Lack(source, None, 1, 0))
            elif part.per_level is not None:
                for level in levels:
                    here = [index for index in ordered if candidates.levels[index] == level]
                    lacks += _lack(source, level, part.per_level, len(here))
                    taken.update(here[: part.per_level])
            else:
                wanted = part.per_source
                lacks += _lack(source, None, 1 if wanted is None else wanted, len(ordered))
                taken.update(ordered[:wanted])
    return sorted(taken), lacks


def check_filled(lacks: Sequence[Lack], what: str) -> None:
    """Refuse what cannot be filled.

    Args:
      what: was asked for, in words.

    Raises:
      UserError: says which level of which source lacks how many.
    """
    if not lacks:
        return
    said = "; ".join(lack.said() for lack in lacks)
    least = min(lack.there for lack in lacks)
    unscored = sorted({lack.source for lack in lacks if lack.level is None and not lack.there})
    if unscored:
        advice = f"give scores of {', '.join(unscored)}, too"
    else:
        flag = "--per-source" if any(lack.level is None for lack in lacks) else "--per-level"
        advice = "score more questions"
        if least:
            advice += f", or take {flag} {least}"
        else:
            advice += ", or leave empty levels out by --levels"
    raise UserError(f"{what} cannot be filled: {said}; {advice}.")


def _lack(source: str, level: int | None, wanted: int, there: int) -> list[Lack]:
    return [Lack(source, level, wanted, there)] if there < wanted else []


def _ordered(indices: Sequence[int], candidates: Candidates, order: Order, seed: int) -> list[int]:
    """Indices of one source in the order in which they are taken."""
    sign = {"random": 0, "longest": -1, "shortest": 1}[order]
    return sorted(
        indices,
        key=lambda index: (
            sign * int(candidates.question_tokens[index]),
            _draw(seed, candidates.sources[index], candidates.ids[index]),
        ),
    )


def _draw(seed: int, source: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{source}\n{name}".encode()).digest()


def words_of(parts: Sequence[Part]) -> list[str]:
    """Each part in words, for the manifest."""
    said = []
    for part in parts:
        whose = part.source or "each source"
        first = "" if part.order == "random" else f", the {part.order} first"
        if part.per_level is not None:
            said.append(f"{count(part.per_level, 'question')} of each level of {whose}{first}")
        elif part.per_source is not None:
            said.append(f"{count(part.per_source, 'question')} of {whose}{first}")
        else:
            said.append(f"all questions of {whose}")
    return said
