"""Near pairs are found by LSH, and verified; short texts by shingles of characters."""

import random

from alphamed_jax.curation.near import near_pairs
from alphamed_jax.curation.texts import SHORT_WORDS

WORDS = [a + b + c for a in "bdfgk" for b in ("ala", "eno", "iru") for c in ("n", "s", "t", "x")]


def texts(seed, count, length):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=length)) for _ in range(count)]


def test_long_texts_of_which_a_word_is_changed_are_near_and_others_are_not():
    originals = texts(0, 30, 40)
    changed = [text.replace(text.split()[20], "zzz", 1) for text in originals]
    found = {(i, j) for i, j, _ in near_pairs([*originals, *changed])}
    assert found == {(i, 30 + i) for i in range(30)}


def test_short_texts_have_a_rule_of_their_own_and_longer_neighbours():
    text = " ".join(WORDS[: SHORT_WORDS - 1])
    longer = f"{text} indeed so"
    ((i, j, ratio),) = near_pairs([text, longer])
    assert (i, j) == (0, 1)
    assert 0.75 < ratio < 1


def test_pairs_among_the_known_are_not_looked_for():
    text = texts(1, 1, 30)[0]
    three = [text, text + " zzz", text + " yyy"]
    assert {pair[:2] for pair in near_pairs(three)} == {(0, 1), (0, 2), (1, 2)}
    assert {pair[:2] for pair in near_pairs(three, known=2)} == {(0, 2), (1, 2)}


def test_progress_ends_where_all_is_done():
    told = []
    list(near_pairs(texts(2, 50, 9), step=lambda *numbers: told.append(numbers)))
    assert told[-1] == (200, 200)
    assert told == sorted(told)
