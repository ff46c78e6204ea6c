"""Errors for people: what was probably meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.errors import UserError, nearest


def test_a_user_error_is_an_ordinary_exception():
    assert issubclass(UserError, Exception)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("stepz", " Did you mean 'steps'?"),
        ("group_sise", " Did you mean 'group_size'?"),
        ("zzzzzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_known_word_is_named_or_none(word, hint):
    assert nearest(word, ["seed", "steps", "group_size"]) == hint


def test_known_words_may_come_from_any_iterable():
    assert nearest("step", iter({"steps": 1})) == " Did you mean 'steps'?"


@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_a_known_word_is_nearest_to_itself(known, data):
    word = data.draw(st.sampled_from(known))
    assert nearest(word, known) == f" Did you mean {word!r}?"
