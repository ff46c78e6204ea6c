"""Texts that are nearly the same: candidates by MinHash LSH, verified one by one.

MinHash over shingles of 5 words (Broder 1997; the datasketch package), and for texts below
`SHORT_WORDS` words over shingles of 10 characters. LSH only proposes; what counts is rapidfuzz's
ratio, the share of the characters that two texts have in common in the same order.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from datasketch import LeanMinHash, MinHash, MinHashLSH
from jaxtyping import UInt32
from rapidfuzz import fuzz

from alphamed_jax.curation.texts import NEAR, SHORT_WORDS

WORDS, CHARACTERS = 5, 10
"""Length of a shingle."""
BANDS, ROWS = 40, 4
"""Two texts are candidates where one of the bands agrees in all its rows: for texts that share the
share s of their shingles 1 - (1 - s^4)^40 of the time: 0.64 at s = 0.4, 0.92 at 0.5, 0.996 at 0.6,
and 0.0003 at the 0.05 that two vignettes share by their turns of phrase alone."""
_AT_ONCE = 10
"""Bands in memory at once: all 40 of 200,000 texts would take 3 GB."""
_COMMON = 200
"""A shingle that so many texts hold is a turn of phrase ("of the following"), by which no
candidates are looked for: tens of thousands of texts would be candidates of one another."""
_COUNTERS = 1 << 24
_SHORT_NEIGHBOUR = 12
"""A short text may have a near one of up to so many words, less one."""
_SEED = 1

Step = Callable[[int, int], None]
"""Told how many of how many texts are done."""


def no_step(done: int, total: int) -> None:
    """Show nothing."""


def near_pairs(
    texts: Sequence[str], known: int = 0, step: Step = no_step
) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, ratio) with i < j of distinct texts that are nearly the same, in no order.

    Args:
      texts: plain texts, each distinct from the others.
      known: pairs among the first so many are not looked for.
      step: called as the work goes on.
    """
    words = [text.count(" ") + 1 for text in texts]
    short = [number for number, count in enumerate(words) if count < SHORT_WORDS]
    long = [number for number, count in enumerate(words) if count >= SHORT_WORDS]
    beside = [number for number in long if words[number] < _SHORT_NEIGHBOUR]
    total = (len(short) + len(beside) + len(long)) * 2
    done = 0

    def ahead(count: int) -> None:
        nonlocal done
        done += count
        step(done, total)

    found: set[tuple[int, int]] = set()
    for numbers, stored, shingles in (
        (long, len(long), _word_shingles),
        ([*short, *beside], len(short), _character_shingles),
    ):
        signatures = _signatures([texts[number] for number in numbers], shingles, ahead)
        for one, other in _candidates(signatures, stored, ahead):
            i, j = sorted((numbers[one], numbers[other]))
            if j < known or (i, j) in found:
                continue
            ratio = fuzz.ratio(texts[i], texts[j], score_cutoff=NEAR * 100)
            if ratio > 0:
                found.add((i, j))
                yield i, j, ratio / 100


def _word_shingles(text: str) -> list[bytes]:
    words = text.split()
    return [" ".join(words[i : i + WORDS]).encode() for i in range(len(words) - WORDS + 1)]


def _character_shingles(text: str) -> list[bytes]:
    return [text[i : i + CHARACTERS].encode() for i in range(max(len(text) - CHARACTERS + 1, 1))]


def _signatures(
    texts: Sequence[str], shingles: Callable[[str], list[bytes]], ahead: Callable[[int], None]
) -> UInt32[np.ndarray, "n permutations"]:
    """The MinHash of each text, without the shingles that many have if it has others."""
    hashed = [np.fromiter(map(zlib.crc32, shingles(text)), np.uint32) for text in texts]
    holders = np.zeros(_COUNTERS, np.uint32)
    for numbers in hashed:
        holders[np.unique(numbers % _COUNTERS)] += 1
    found = np.empty((len(texts), BANDS * ROWS), np.uint32)
    blank = MinHash(BANDS * ROWS, seed=_SEED, hashfunc=int, scheme="affine32")
    for number, numbers in enumerate(hashed):
        rare = numbers[holders[numbers % _COUNTERS] < _COMMON]
        minhash = blank.copy()
        minhash.update_batch(rare if len(rare) else numbers)
        found[number] = minhash.hashvalues
        if number % 1000 == 999 or number == len(texts) - 1:
            ahead(number % 1000 + 1)
    return found


def _candidates(
    signatures: UInt32[np.ndarray, "n permutations"],
    stored: int,
    ahead: Callable[[int], None],
) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows that agree in a band, one of them among the first `stored` rows.

    A pair may come once for each `_AT_ONCE` bands: to remember millions of them takes more memory
    than to look at them again.
    """
    count = len(signatures)
    for first in range(0, BANDS, _AT_ONCE):
        index = MinHashLSH(num_perm=_AT_ONCE * ROWS, params=(_AT_ONCE, ROWS))
        columns = slice(first * ROWS, (first + _AT_ONCE) * ROWS)
        before = count * first // BANDS
        for number in range(count):
            row = LeanMinHash(seed=_SEED, hashvalues=signatures[number, columns], scheme="affine32")
            for other in index.query(row):
                yield int(other), number  # pyright: ignore[reportArgumentType]
            if number < stored:
                index.insert(number, row, check_duplication=False)
            if number % 1000 == 999 or number == count - 1:
                now = (count * first + (number + 1) * _AT_ONCE) // BANDS
                ahead(now - before)
                before = now
