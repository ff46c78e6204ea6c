"""Texts that share 64 consecutive characters, as HuatuoGPT-o1 filtered its questions.

Chen et al. 2024 (arXiv 2412.18925) left out what shares 64 characters with a benchmark, after
Med-PaLM 2 (arXiv 2305.09617, 512 characters). Every window of the benchmarks is known by a rolling
hash of 64 bits; a window of another text that is among them is compared character by character.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from alphamed_jax.curation.near import Step

WINDOW = 64
"""Characters."""
FORMULA = 3
"""What so many different questions of the benchmarks hold is a turn of phrase ("which of the
following is the most appropriate next step in management"), which tells no question."""
PHRASE = 32
"""The shortest turn of phrase, and how much of a shared piece has to be none, in characters: a
phrase of 60 characters with four more before it by chance is no overlap. Our choice."""
WHOLE_WORDS = 6
"""A text that is shorter than a window counts where another holds all of it, from so many words."""
_CHUNK = 2_000_000
"""Characters that are looked up at once."""
_BASE = 0x9E3779B97F4A7C15  # odd, so that no power of it is 0
_FILTER_BITS = 24


class Run(NamedTuple):
    """What two texts share."""

    text: int
    other: int
    characters: int
    """Length of the longest piece found."""


@dataclass(frozen=True)
class Windows:
    """Every window of some texts, sorted by hash; without those that are turns of phrase."""

    texts: Sequence[str]
    hashes: UInt64[np.ndarray, " windows"]
    of_text: Int64[np.ndarray, " windows"]
    starts: Int64[np.ndarray, " windows"]
    formulas: UInt64[np.ndarray, " formulas"]
    """Hashes of windows that are turns of phrase, sorted."""
    phrases: UInt64[np.ndarray, " phrases"]
    """Hashes of pieces of `PHRASE` characters that are, sorted."""
    filter: Bool[np.ndarray, " bits"]
    """Whether any hash begins with these bits: most windows of other texts end here."""


def index_windows(texts: Sequence[str]) -> Windows:
    """Index distinct texts."""
    phrases = _sorted_windows(texts, PHRASE)
    phrase_hashes = np.unique(phrases[0][phrases[3]])
    hashes, of_text, starts, formula = _sorted_windows(texts, WINDOW)
    maybe = np.zeros(1 << _FILTER_BITS, bool)
    maybe[_first_bits(hashes)] = True
    return Windows(
        texts,
        hashes[~formula],
        of_text[~formula],
        starts[~formula],
        np.unique(hashes[formula]),
        phrase_hashes,
        maybe,
    )


def _sorted_windows(
    texts: Sequence[str], width: int
) -> tuple[
    UInt64[np.ndarray, " windows"],
    Int64[np.ndarray, " windows"],
    Int64[np.ndarray, " windows"],
    Bool[np.ndarray, " windows"],
]:
    """As `_windows`, sorted by hash, and whether so many texts hold it that it is a phrase."""
    hashes, of_text, starts = _windows(texts, width)
    order = np.lexsort((of_text, hashes))
    hashes, of_text, starts = hashes[order], of_text[order], starts[order]
    new_hash = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
    new_text = new_hash | np.append(True, of_text[1:] != of_text[:-1])[: len(hashes)]
    group = np.cumsum(new_hash) - 1
    holders = np.bincount(group[new_text], minlength=1)
    return hashes, of_text, starts, holders[group] >= FORMULA


def shared_runs(
    texts: Sequence[str], index: Windows, step: Step
) -> tuple[list[Run], frozenset[int]]:
    """Return what texts share with those of the index, and which share turns of phrase alone.

    A text of the second kind has 64 characters in common with one of the index, too.
    """
    runs: list[Run] = []
    phrases: set[int] = set()
    for first, chunk in _chunks(texts):
        hashes, of_text, starts = _windows(chunk, WINDOW)
        maybe = np.flatnonzero(index.filter[_first_bits(hashes)])
        hashes, of_text, starts = hashes[maybe], of_text[maybe], starts[maybe]
        phrases |= set((of_text[_are_in(hashes, index.formulas)] + first).tolist())
        low = np.searchsorted(index.hashes, hashes, "left")
        counts = np.searchsorted(index.hashes, hashes, "right") - low
        hit = np.repeat(np.arange(len(hashes)), counts)
        within = np.arange(len(hit)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = low[hit] + within
        others, other_starts = index.of_text[found], index.starts[found]
        phrases |= set((of_text[hit] + first).tolist())
        runs += _longest(chunk, of_text[hit], starts[hit], index, others, other_starts, first)
        step(first + len(chunk), len(texts))
    return runs, frozenset(phrases - {run.text for run in runs})


def whole_in(shorts: Sequence[str], texts: Sequence[str], step: Step) -> Iterator[tuple[int, int]]:
    """Yield (short, text) where a text holds all words of a short one in a row, and more words.

    Args:
      shorts: those below a window, of at least `WHOLE_WORDS` words, count; others are skipped.
    """
    by_start: dict[tuple[str, ...], list[tuple[int, list[str]]]] = {}
    for number, short in enumerate(shorts):
        words = short.split()
        if len(short) < WINDOW and len(words) >= WHOLE_WORDS:
            by_start.setdefault(tuple(words[:WHOLE_WORDS]), []).append((number, words))
    for number, text in enumerate(texts):
        words = text.split()
        for start in range(len(words) - WHOLE_WORDS + 1):
            for short, wanted in by_start.get(tuple(words[start : start + WHOLE_WORDS]), ()):
                if words[start : start + len(wanted)] == wanted and len(words) > len(wanted):
                    yield short, number
        if number % 1000 == 999 or number == len(texts) - 1:
            step(number + 1, len(texts))


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first, some texts), all texts in turn."""
    chunk: list[str] = []
    size = first = 0
    for number, text in enumerate(texts):
        chunk.append(text)
        size += len(text)
        if size >= _CHUNK:
            yield first, chunk
            chunk, size, first = [], 0, number + 1
    if chunk:
        yield first, chunk


def _windows(
    texts: Sequence[str], width: int
) -> tuple[
    UInt64[np.ndarray, " windows"], Int64[np.ndarray, " windows"], Int64[np.ndarray, " windows"]
]:
    """Hash, number of the text, and place in it of all its pieces of `width` characters, 2^n."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    counts = np.maximum(lengths - width + 1, 0)
    of_text = np.repeat(np.arange(len(texts)), counts)
    starts = np.arange(len(of_text)) - np.repeat(np.cumsum(counts) - counts, counts)
    if not len(of_text):
        return np.zeros(0, np.uint64), of_text, starts
    # Of 1, 2, 4, ... characters: a piece is its first half times a power of the base, plus its
    # second half, modulo 2^64.
    hashes, half, power = codes + np.uint64(1), 1, _BASE
    while half < width:
        hashes = hashes[:-half] * np.uint64(power) + hashes[half:]
        half, power = 2 * half, power * power % 2**64
    begins = np.cumsum(lengths) - lengths
    return hashes[begins[of_text] + starts], of_text, starts


def _first_bits(hashes: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    return (hashes * np.uint64(_BASE)) >> np.uint64(64 - _FILTER_BITS)


def _are_in(
    hashes: UInt64[np.ndarray, " n"], known: UInt64[np.ndarray, " k"]
) -> Bool[np.ndarray, " n"]:
    if not len(known):
        return np.zeros(len(hashes), bool)
    return known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes


def _longest(
    texts: Sequence[str],
    of_text: Int64[np.ndarray, " hits"],
    starts: Int64[np.ndarray, " hits"],
    index: Windows,
    others: Int64[np.ndarray, " hits"],
    other_starts: Int64[np.ndarray, " hits"],
    first: int,
) -> list[Run]:
    """Join hits that follow one another, and keep the longest piece of each pair of texts."""
    shift = starts - other_starts
    order = np.lexsort((starts, shift, others, of_text))
    best: dict[tuple[int, int], int] = {}
    at = -1
    last: tuple[int, int, int] | None = None
    for hit in order.tolist():
        text, other, start = int(of_text[hit]), int(others[hit]), int(starts[hit])
        here = (text, other, int(shift[hit]))
        if here == last and start <= at:
            continue  # within the piece that was just measured
        length, end = _extended(texts[text], start, index.texts[other], int(other_starts[hit]))
        last, at = here, end - WINDOW
        if length > best.get((text, other), WINDOW - 1):
            piece = texts[text][end - length : end]
            if _own_characters(piece, index.phrases) >= PHRASE:
                best[text, other] = length
    return [Run(first + text, other, length) for (text, other), length in best.items()]


def _own_characters(piece: str, phrases: UInt64[np.ndarray, " phrases"]) -> int:
    """How many characters of a piece are in no turn of phrase."""
    if not len(phrases):
        return len(piece)
    hashes, _, starts = _windows([piece], PHRASE)
    covered = np.zeros(len(piece) + 1, np.int64)
    at = starts[_are_in(hashes, phrases)]
    np.add.at(covered, at, 1)
    np.add.at(covered, at + PHRASE, -1)
    return int((np.cumsum(covered)[:-1] == 0).sum())


def _extended(text: str, start: int, other: str, other_start: int) -> tuple[int, int]:
    """Length of the piece that two texts share around two places, and where it ends in `text`.

    The length is 0 where the windows there differ: a hash may be shared by chance.
    """
    if text[start : start + WINDOW] != other[other_start : other_start + WINDOW]:
        return 0, start + WINDOW
    back = 0
    most = min(start, other_start)
    while back < most and text[start - back - 1] == other[other_start - back - 1]:
        back += 1
    ahead = WINDOW
    most = min(len(text) - start, len(other) - other_start)
    while ahead < most and text[start + ahead] == other[other_start + ahead]:
        ahead += 1
    return back + ahead, start + ahead
