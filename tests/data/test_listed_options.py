"""Options are read out of a text where it is clear which lines they are, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.data.listed_options import COLON, STYLES, Listed, listed_options


@pytest.mark.parametrize(
    ("text", "options", "after"),
    [
        ("Why?\nA: one\nB: two", ("one", "two"), ""),
        ("Why?\nA. one\nB. two\nC. three\n", ("one", "two", "three"), ""),
        ("Why?\n\nA) one\n\nB) two\n\nSay it.", ("one", "two"), "Say it."),
        ("Why?\nA. one\nB. two\nSay it.\nA letter.", ("one", "two"), "Say it.\nA letter."),
        ("Why? (A) one (B) two (C) three", ("one", "two", "three"), ""),
        ("Why?\n[A] one\n[B] two", ("one", "two"), ""),
        ('Why?\nA: one\nB: two\n"\n', ("one", "two"), ""),  # what stands behind some of MedQA's
        ('Why?\nA: one\n"\nB: two', ("one", "two"), ""),
        ("Why?\nA: E. coli\nB: C. difficile", ("E. coli", "C. difficile"), ""),
        ("Why?\nA:\nB: two", ("", "two"), ""),
    ],
)
def test_options_are_the_lines_with_letters(text, options, after):
    assert listed_options(text) == Listed("Why?", options, after)


def test_an_earlier_list_belongs_to_the_question():
    text = "Example:\nA: x\nB: y\nWhy?\nA: one\nB: two"

    assert listed_options(text) == Listed("Example:\nA: x\nB: y\nWhy?", ("one", "two"), "")


@pytest.mark.parametrize(
    "text",
    [
        "Why?",
        "",
        "Why?\nA: one",  # one is no choice
        "Why?\nB: one\nC: two",
        "Why?\nA: one\nC: two",
        "Why?\nA: one\nB: two\nB: three",
        "Why?\nA: one\nand more\nB: two",  # goes on, or is something else
        "Why?\nA: 1\nB: 2\n(A) 1, 2\n(B) 2, 1",  # two lists
        "Vitamin A: what?\nAnd vitamin\nB: what?",
    ],
)
def test_what_is_not_clear_is_not_read(text):
    assert listed_options(text) is None


words = st.text("abcxyz .:()", min_size=1).map(str.strip).filter(bool)


@given(st.sampled_from(STYLES), words, st.lists(words, min_size=2, max_size=10))
def test_what_is_written_in_one_style_is_read_in_it(style, stem, options):
    lines = [
        style.replace("A", letter).replace("text", text)
        for letter, text in zip("ABCDEFGHIJ", options, strict=False)
    ]

    assert listed_options("\n".join([stem, *lines]), (style,)) == Listed(stem, tuple(options), "")


def test_only_the_styles_that_are_asked_for_count():
    assert listed_options("Why?\nA. one\nB. two", (COLON,)) is None
