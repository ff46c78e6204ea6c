r"""Extraction rules: what each reads out of responses, literally, and what none of them does."""

import pytest
from answer_texts import RESPONSES
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.rules import DEFAULT, RULES, extract, last_box
from alphamed_jax.rl.answer import explain_answer

ASKED = Question("q", "Which?", ("Aspirin", "Heparin", "Vitamin K.", "None (of these)"), "B", "t")
GERMS = Question("g", "Which?", ("C. difficile", "E. coli", "S. aureus"), "A", "t")
TWICE = Question("d", "Which?", ("Aspirin", "aspirin", "Heparin"), "C", "t")

CASES = [
    # response, boxed, boxed-or-text, answer-is, first-letter, last-letter
    ("\\boxed{B}", "B", "B", "no_phrase", "B", "B"),
    ("It is \\boxed{**(b).**}", "B", "B", "no_phrase", "no_letter", "no_letter"),
    ("\\boxed{B. Heparin}", "B", "B", "no_phrase", "B", "B"),
    ("\\boxed{Heparin}", "not_one_letter", "B", "no_phrase", "no_letter", "no_letter"),
    ("\\boxed{\\text{ heparin. }}", "not_one_letter", "B", "no_phrase", "no_letter", "no_letter"),
    ("\\boxed{vitamin  K}", "not_one_letter", "C", "no_phrase", "no_letter", "no_letter"),
    ("\\boxed{None (of these)}", "not_one_letter", "D", "no_phrase", "no_letter", "no_letter"),
    ("\\boxed{Heparine}", "not_one_letter", "not_an_option", "no_phrase", "no_letter", "no_letter"),
    ("\\boxed{A or B}", "not_one_letter", "not_an_option", "no_phrase", "A", "B"),
    ("\\boxed{A} then \\boxed{Heparin}", "not_one_letter", "B", "no_phrase", "A", "A"),
    ("\\boxed{E}", "out_of_range", "out_of_range", "no_phrase", "no_letter", "no_letter"),
    ("The answer is (C).", "no_box", "no_box", "C", "C", "C"),
    ("answer is A. No, the answer is B", "no_box", "no_box", "A", "A", "B"),
    ("The answer is J", "no_box", "no_box", "out_of_range", "no_letter", "no_letter"),
    ("The answer is Digoxin", "no_box", "no_box", "D", "no_letter", "no_letter"),
    ("The Answer is: B", "no_box", "no_box", "no_phrase", "B", "B"),
    ("A patient with hepatitis B and C", "no_box", "no_box", "no_phrase", "A", "C"),
    ("AB_C 2D", "no_box", "no_box", "no_phrase", "no_letter", "no_letter"),
    ("", "no_box", "no_box", "no_phrase", "no_letter", "no_letter"),
    ("<think>\\boxed{A} answer is A</think>\\boxed{B}", "B", "B", "no_phrase", "B", "B"),
    ("\\boxed{A} answer is A <think> B", *["think_not_closed"] * 5),
]


@pytest.mark.parametrize("case", CASES, ids=[repr(case[0]) for case in CASES])
def test_what_each_rule_reads(case):
    response, *expected = case
    found = [extract(rule, response, ASKED) for rule in RULES]
    assert found == [(said, "ok") if len(said) == 1 else (None, said) for said in expected]


def test_an_option_that_begins_like_a_label_is_read_by_its_text_alone():
    assert extract("boxed", "\\boxed{C. difficile}", GERMS) == (None, "not_one_letter")
    assert extract("boxed-or-text", "\\boxed{C. difficile}", GERMS) == ("A", "ok")
    assert extract("boxed-or-text", "\\boxed{C}", GERMS) == ("C", "ok")


def test_a_text_that_two_options_have_is_no_answer():
    assert extract("boxed-or-text", "\\boxed{Aspirin}", TWICE) == (None, "text_of_two_options")


def test_a_thought_that_the_prompt_leaves_open_counts_for_every_rule():
    said = "answer is A \\boxed{A} </think> answer is B \\boxed{B}"
    for rule in RULES:
        assert extract(rule, said, ASKED, inside_thought=True) == ("B", "ok"), rule
        cut = extract(rule, "answer is A \\boxed{A}", ASKED, inside_thought=True)
        assert cut == (None, "think_not_closed"), rule


def test_a_response_that_was_cut_before_its_answer_says_so_and_one_with_an_answer_does_not():
    assert extract("boxed", "\\boxed{B", ASKED, truncated=True) == (None, "truncated")
    assert extract("boxed", "\\boxed{B} and", ASKED, truncated=True) == ("B", "ok")


def test_an_unknown_rule_is_told_the_nearest():
    with pytest.raises(UserError) as error:
        extract("boxd", "", ASKED)
    assert str(error.value) == (
        "--rule boxd: no such extraction rule. Did you mean 'boxed'? There are boxed, "
        "boxed-or-text, answer-is, first-letter, last-letter."
    )


def test_the_documentation_has_each_rule_in_the_words_of_the_code():
    text = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name, rule in RULES.items():
        assert f"| `{name}` | {rule.words} |" in text, name


def test_the_default_is_the_rule_of_training():
    assert next(iter(RULES)) == DEFAULT == "boxed"


@settings(max_examples=500)
@given(RESPONSES, st.integers(0, 6), st.booleans())
def test_the_rule_of_training_is_followed_although_most_of_a_response_is_skipped(
    response, unclosed, inside_thought
):
    response += "\\boxed{" * unclosed
    options = GERMS.options
    found = explain_answer(response, len(options), options, inside_thought=inside_thought)
    assert extract("boxed", response, GERMS, inside_thought=inside_thought) == (
        found.letter,
        found.reason,
    )


@given(RESPONSES)
def test_the_last_box_is_the_one_that_the_answer_rule_judges(response):
    verdict = explain_answer(response, 10)
    content = last_box(response)
    if verdict.reason in ("no_box", "think_not_closed"):
        assert content is None
    elif content is not None:
        assert explain_answer(f"\\boxed{{{content}}}", 10) == verdict


@given(RESPONSES)
def test_no_rule_fails_or_leaves_the_options_whatever_a_response_holds(response):
    for rule in RULES:
        for inside_thought in (False, True):
            letter, reason = extract(rule, response, GERMS, inside_thought=inside_thought)
            assert (letter in ("A", "B", "C")) == (reason == "ok")
            assert letter is None or reason == "ok"


@given(RESPONSES)
def test_a_letter_in_a_box_is_the_same_with_or_without_texts(response):
    boxed = extract("boxed", response, GERMS)
    if boxed[0]:
        assert extract("boxed-or-text", response, GERMS) == boxed
