"""Sources in given shares: quotas in each epoch, and every question before any comes again."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.data.mixture import make_mixture, parse_weights, quotas
from alphamed_jax.errors import UserError

SOURCES = ["a"] * 30 + ["b"] * 6 + ["c"] * 4


def mixture(seed=0):
    return make_mixture(["a=1", "b=2", "c=1"], SOURCES, seed)


def test_an_epoch_has_the_share_of_each_source():
    drawn = [SOURCES[i] for i in mixture().indices(0, 40)]
    assert Counter(drawn) == {"a": 10, "b": 20, "c": 10}
    # and in an order that mixes them, another one in each epoch.
    assert drawn != sorted(drawn)
    assert drawn != [SOURCES[i] for i in mixture().indices(40, 40)]


@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.lists(st.integers(0, 30), max_size=5))
def test_any_way_of_cutting_gives_the_same_sequence(seed, cursor, cuts):
    whole = mixture(seed).indices(cursor, sum(cuts))
    parts, at = [], cursor
    for count in cuts:
        parts += mixture(seed).indices(at, count)
        at += count
    assert parts == whole


@given(st.integers(0, 2**32 - 1))
def test_no_question_of_a_source_comes_again_before_all_have_come(seed):
    drawn = mixture(seed).indices(0, 120)
    for name, size in (("a", 30), ("b", 6), ("c", 4)):
        own = [i for i in drawn if SOURCES[i] == name]
        for start in range(0, len(own) - size + 1, size):
            assert sorted(own[start : start + size]) == [
                i for i, source in enumerate(SOURCES) if source == name
            ]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 1000))
def test_quotas_add_up_and_are_within_one_of_the_exact_share(weights, total):
    found = quotas(weights, total)
    assert sum(found) == total
    for weight, count in zip(weights, found, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1 + 1e-6


@pytest.mark.parametrize(
    ("given_weights", "message"),
    [
        (["a"], "'a', expected NAME=W"),
        (["a=x"], "'a=x', expected NAME=W"),
        (["a=0"], "'a=0', expected NAME=W with a number above 0"),
        (["a=inf"], "'a=inf', expected NAME=W"),
        (["d=1"], r"'d' is no source of this run \(they are a, b, c\)"),
        (["a=1", "a=2"], "'a' is given twice"),
        (["a=1"], "no weight for b, c"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(given_weights, message):
    with pytest.raises(UserError, match=message):
        parse_weights(given_weights, ["a", "b", "c"])


def test_a_source_that_would_never_be_drawn_is_refused():
    with pytest.raises(UserError, match="'b' would not be drawn once in 40 questions"):
        make_mixture(["a=1000", "b=1", "c=1000"], SOURCES, 0)
