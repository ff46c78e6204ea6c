"""Text for people: short numbers and times, and nothing that a terminal or page would obey."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.text import duration, number, shorten_middle, shorten_start, visible


@given(st.text(st.characters(categories=None)))
def test_visible_text_can_be_printed_anywhere(text):
    clean = visible(text)
    assert clean.encode().decode() == clean
    assert all(character in "\t\n" or character >= " " for character in clean)


@given(st.text(max_size=80), st.integers(9, 60))
def test_shortened_text_keeps_to_its_limit_and_its_ends(text, limit):
    middle, start = shorten_middle(text, limit), shorten_start(text, limit)
    assert len(middle) <= limit
    assert len(start) <= limit
    if len(text) <= limit:
        assert middle == start == text
    else:
        assert middle[0] == text[0]
        assert middle[-1] == start[-1] == text[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0s"),
        (59.4, "59s"),
        (59.7, "1m 00s"),
        (3599.7, "1h 00m"),
        (3840, "1h 04m"),
        (90000, "1d 01h"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0, "0"),
        (0.4125, "0.412"),
        (14.25, "14.2"),
        (1234.5, "1234"),
        (12345, "12.3k"),
        (999999, "1M"),
        (2.5e9, "2.5B"),
        (5e-7, "5e-7"),
        (-0.7, "-0.7"),
    ],
)
def test_numbers_are_short(value, text):
    assert number(value) == text
