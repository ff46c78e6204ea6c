"""Which questions are the same: within a set, and between a set and benchmarks, both ways.

Overlap is judged on the questions' texts. Where a text is too short to tell a question, or only
near another, the options have to agree as well; they never make an overlap by themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from alphamed_jax.curation.near import near_pairs
from alphamed_jax.curation.substring import index_windows, shared_runs, whole_in
from alphamed_jax.curation.texts import (
    Entry,
    confirms,
    is_near_question,
    is_same_question,
    same_answer,
)

EXACT, NEAR, SUBSTRING = KINDS = ("exact", "near", "substring")
"""From the strongest on; a pair is reported once, as the first that holds."""

Show = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many are done."""


def show_nothing(what: str, done: int, total: int) -> None:
    """No progress."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A question that is also in a benchmark."""

    item: int
    """Number of the question."""
    other: int
    """Number of the benchmark's question."""
    kind: str
    score: float
    """exact: 1. near: the ratio of the texts. substring: the share of the shorter text that the
    other holds in one piece."""
    characters: int | None = None
    """Length of that piece."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A question that stands in the set before."""

    item: int
    first: int
    """Number of the one before it."""
    kind: str
    score: float
    same_answer: bool
    """False: text and options are the same, and another one is called right."""


@dataclass(frozen=True)
class Compared:
    """What was found."""

    overlaps: list[Overlap] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    phrases: int = 0
    """Texts of the set that share 64 characters with benchmarks in turns of phrase alone."""


def compare(items: Sequence[Entry], others: Sequence[Entry], show: Show = show_nothing) -> Compared:
    """Compare questions with one another and with those of benchmarks.

    Args:
      items: the set.
      others: the benchmarks' questions.
      show: called as the work goes on.
    """
    mine, theirs = _by_text(items), _by_text(others)
    overlaps: dict[tuple[int, int], Overlap] = {}
    duplicates: dict[tuple[int, int], Duplicate] = {}

    def overlap(item: int, other: int, kind: str, score: float, size: int | None = None) -> None:
        overlaps.setdefault((item, other), Overlap(item, other, kind, round(score, 4), size))

    def duplicate(pair: tuple[int, int], kind: str, score: float) -> None:
        first, item = sorted(pair)
        agree = same_answer(items[first], items[item])
        found = Duplicate(item, first, kind, round(score, 4), agree)
        duplicates.setdefault((first, item), found)

    for text, numbers in mine.items():
        first: list[int] = []
        for item in numbers:
            before = next((one for one in first if is_same_question(items[one], items[item])), None)
            if before is None:
                first.append(item)
            else:
                duplicate((before, item), EXACT, 1.0)
        for item in numbers:
            for number in theirs.get(text, ()):
                if not items[item].is_short or is_same_question(items[item], others[number]):
                    overlap(item, number, EXACT, 1.0)

    texts = [text for text in theirs if text not in mine]
    known = len(texts)
    texts += mine
    for i, j, ratio in near_pairs(texts, known, lambda *n: show("near texts", *n)):
        for text, near in ((texts[i], texts[j]), (texts[j], texts[i])):
            for item in mine.get(text, ()):
                for other in theirs.get(near, ()):
                    if is_near_question(items[item], others[other], ratio):
                        overlap(item, other, NEAR, ratio)
        for item in mine.get(texts[i], ()):
            for other in mine.get(texts[j], ()):
                if is_near_question(items[item], items[other], ratio) and same_answer(
                    items[item], items[other]
                ):
                    duplicate((item, other), NEAR, ratio)

    phrases = 0
    if theirs:
        phrases = _substrings(items, others, mine, theirs, overlap, show)
    return Compared(
        [overlaps[pair] for pair in sorted(overlaps)],
        [duplicates[pair] for pair in sorted(duplicates)],
        phrases,
    )


def _substrings(
    items: Sequence[Entry],
    others: Sequence[Entry],
    mine: dict[str, list[int]],
    theirs: dict[str, list[int]],
    overlap: Callable[[int, int, str, float, int], None],
    show: Show,
) -> int:
    """Find texts that share a piece; return how many share turns of phrase alone."""
    own, published = list(mine), list(theirs)

    def shown(done: int, total: int) -> None:
        show("64 characters", done, total)

    runs, phrases = shared_runs(own, index_windows(published), shown)
    for run in runs:
        text, other = own[run.text], published[run.other]
        share = run.characters / min(len(text), len(other))
        for item in mine[text]:
            for number in theirs[other]:
                overlap(item, number, SUBSTRING, share, run.characters)
    for item, number, size in _held(items, others, own, published, mine, theirs, show):
        overlap(item, number, SUBSTRING, 1.0, size)
    return len(phrases)


def _held(
    items: Sequence[Entry],
    others: Sequence[Entry],
    own: Sequence[str],
    published: Sequence[str],
    mine: dict[str, list[int]],
    theirs: dict[str, list[int]],
    show: Show,
) -> Iterator[tuple[int, int, int]]:
    """Yield (item, other, characters) where one's short text is part of the other's text."""

    def shown(done: int, total: int) -> None:
        show("short texts in longer ones", done, total)

    for shorter, longer, ours_is_longer in ((published, own, True), (own, published, False)):
        for i, j in whole_in(shorter, longer, shown):
            text, other = (longer[j], shorter[i]) if ours_is_longer else (shorter[i], longer[j])
            for item in mine[text]:
                for number in theirs[other]:
                    if _confirmed(items[item], others[number]):
                        yield item, number, len(shorter[i])


def _confirmed(one: Entry, other: Entry) -> bool:
    return (one.is_yes_no and other.is_yes_no) or confirms(one, other)


def _by_text(entries: Iterable[Entry]) -> dict[str, list[int]]:
    """Text -> numbers of those that have it; a text without a word is nobody's."""
    found: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        if entry.text:
            found.setdefault(entry.text, []).append(number)
    return found
