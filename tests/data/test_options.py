"""Changed options: the key moves with its option, and what speaks of others keeps its sense."""

import itertools
import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.data import options
from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.data.options import (
    CannotChange,
    drawn_orders,
    fewer_options,
    names_others,
    orders,
    speaks_of_all,
    without_right_option,
)
from alphamed_jax.data.questions import Question

DRUGS = ("Aspirin", "Heparin", "Warfarin", "Insulin")


def question(texts=DRUGS, answer: str = "B", name: str = "q1") -> Question:
    return Question(id=name, stem="Which drug?", options=tuple(texts), answer=answer, source="s")


def right_text(one: Question) -> str:
    return one.options[one.answer_index]


plain_questions = st.builds(
    lambda texts, place, name: question(texts, LETTERS[place % len(texts)], name),
    st.lists(st.text("xyz", min_size=2), min_size=2, max_size=10, unique=True),
    st.integers(0, 9),
    st.text("pq", min_size=1),
)


@pytest.mark.parametrize(
    "text",
    [
        "None of the above",
        "none of above.",
        "All of the above",
        "All the above",
        "Any of the above",
        "All of these",
        "Both",
        "None",
        "All are correct",
        "Neither",
        "Some of the above",
        "Two of the above are true",
    ],
)
def test_options_that_speak_of_all_others_are_known(text):
    assert speaks_of_all(text)


@pytest.mark.parametrize(
    "text",
    [
        "All patients",
        "Both eyes",
        "No",
        "Specific gravity of above 1.018",
        "None of the patients recovered",
        "Above the knee",
        "..",
    ],
)
def test_options_that_begin_with_the_same_words_but_say_something_themselves_are_not(text):
    assert not speaks_of_all(text)


@pytest.mark.parametrize(
    "text",
    [
        "A and C",
        "Both A and B",
        "Both (A) & (C)",
        "both a & b",
        "A,B",
        "A, B and D",
        "Both AB",
        "b, c are true & a, d are false",
        "1 and 3 are correct",
        "Both 1 and 2",
        "Both option 2 and 3",
        "A only",
        "All of the above except C",
        "The same as option D, but later",
        "Answers (b) and (d), with fever",
    ],
)
def test_options_that_name_others_are_known(text):
    assert names_others((*DRUGS, text))


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AB",
        "B",
        "Vitamins A and D",
        "Hepatitis A",
        "A and Z",
        "1",
        "2.5",
        "1-3",
        "1, 3",
        "I and II",
        "I, II and III",
        "D and E, but there is no E of this letter here: vitamin",
        "An option for a patient",
        "Both choices a patient has",
    ],
)
def test_letters_and_numbers_that_are_answers_of_their_own_name_no_option(text):
    assert not names_others((*DRUGS[:3], text))


def test_an_i_beside_roman_numerals_is_one_of_them():
    assert not names_others(("I only", "II only", *(f"drug {n} x" for n in "klmnopqr")))
    assert names_others(("I only", "drug", *(f"drug {n} x" for n in "klmnopqr")))


@given(plain_questions, st.integers(-(2**70), 2**70), st.integers(1, 30))
def test_orders_are_others_and_distinct_and_the_letter_moves_with_its_option(base, seed, count):
    made = orders(base, seed, count)

    assert len(made) == count
    for one in made:
        assert one.options != base.options
        assert sorted(one.options) == sorted(base.options)
        assert right_text(one) == right_text(base)
        assert (one.id, one.stem, one.source) == (base.id, base.stem, base.source)
    distinct = {one.options for one in made}
    assert len(distinct) == min(count, math.factorial(len(base.options)) - 1)
    assert made[: len(distinct)] == orders(base, seed, len(distinct))


def test_an_order_depends_on_seed_and_question_alone_and_every_order_comes():
    assert orders(question(), 3, 2)[1] == orders(question(), 3, 9)[1]
    assert len({orders(question(), seed, 1)[0].options for seed in range(300)}) == 23
    assert len({orders(question(name=f"q{i}"), 0, 1)[0].options for i in range(300)}) == 23


@given(st.integers(0, 2**64), st.integers(1, 8))
def test_options_that_speak_of_all_others_stay_and_nothing_moves_past_them(seed, count):
    texts = ("a1", "a2", "All of the above", "b1", "b2", "None of the above")

    for one in orders(question(texts), seed, count):
        assert (one.options[2], one.options[5]) == (texts[2], texts[5])
        assert set(one.options[:2]) == {"a1", "a2"}
        assert set(one.options[3:5]) == {"b1", "b2"}


def test_both_keeps_the_two_above_it():
    (one,) = orders(question(("Fever", "Cough", "Both", "Rash"), "C"), 0, 1)

    assert one.options == ("Cough", "Fever", "Both", "Rash")
    assert one.answer == "C"


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("Fever", "Cough", "Rash", "Both A and B"), options.NAMED),
        (("Fever", "Cough", "Rash", "Both"), options.NAMED),
        (("Fever", "All of the above"), options.FIXED),
        (("Fever", "Fever", "None"), options.FIXED),
    ],
)
def test_options_that_would_say_something_else_are_not_reordered(texts, reason):
    with pytest.raises(CannotChange, match=reason):
        orders(question(texts), 0, 1)


def test_options_of_one_text_make_fewer_orders():
    made = orders(question(("x1", "x1", "y1"), "C"), 0, 4)

    assert {one.options for one in made} == {("x1", "y1", "x1"), ("y1", "x1", "x1")}
    assert all(right_text(one) == "y1" for one in made)


def test_none_of_the_above_takes_the_place_of_the_right_option():
    changed = without_right_option(question())

    assert changed.options == ("Aspirin", "None of the above", "Warfarin", "Insulin")
    assert changed.answer == "B"


@given(plain_questions, st.integers(0, 2**64), st.data())
def test_fewer_options_leave_the_right_one_and_wrong_ones_in_their_order(base, seed, data):
    if len(base.options) == 2:
        with pytest.raises(CannotChange, match=options.FEW):
            fewer_options(base, 2, seed)
        return
    left = data.draw(st.integers(2, len(base.options) - 1))

    changed = fewer_options(base, left, seed)

    assert len(changed.options) == left
    assert right_text(changed) == right_text(base)
    places = [base.options.index(text) for text in changed.options]
    assert places == sorted(places)
    assert set(fewer_options(base, 2, seed).options) <= set(changed.options)


def test_which_wrong_options_are_left_depends_on_the_seed():
    left = {fewer_options(question(), 2, seed).options for seed in range(50)}

    assert left == {("Aspirin", "Heparin"), ("Heparin", "Warfarin"), ("Heparin", "Insulin")}


@pytest.mark.parametrize("change", [without_right_option, lambda q: fewer_options(q, 2, 0)])
@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ((*DRUGS, "None of the above"), options.COLLECTIVE),
        ((*DRUGS, "A and C"), options.NAMED),
        (("Aspirin", "Heparin", "heparin."), options.TWICE),
    ],
)
def test_no_option_is_taken_from_those_that_speak_of_it_or_repeat_it(change, texts, reason):
    with pytest.raises(CannotChange, match=reason):
        change(question(texts))


@pytest.mark.shared
def test_few_real_questions_name_options_by_letter(shared):
    lines = (shared / "data" / "medmcqa_train.jsonl").read_text("utf-8").splitlines()
    rows = [tuple(json.loads(line)[key] for key in ("opa", "opb", "opc", "opd")) for line in lines]

    assert 10 <= sum(map(names_others, rows)) <= 20
    assert 150 <= sum(any(map(speaks_of_all, row)) for row in rows) <= 250


def order_of_draw(one: Question, draw: int, seed: int = 0) -> Question:
    return next(drawn_orders(one, seed, draw))


@given(plain_questions, st.integers(0, 2**32 - 1), st.integers(0, 10**12))
def test_a_draw_moves_the_key_with_its_option_and_depends_on_seed_draw_and_question_alone(
    one, seed, draw
):
    drawn = order_of_draw(one, draw, seed)
    assert sorted(drawn.options) == sorted(one.options)
    assert right_text(drawn) == right_text(one)
    assert (drawn.id, drawn.stem, drawn.source) == (one.id, one.stem, one.source)
    assert drawn == order_of_draw(one, draw, seed)


def test_over_many_draws_every_order_and_every_letter_comes_equally_often():
    drawn = [order_of_draw(question(), draw) for draw in range(4800)]
    # 24 orders, 200 of each expected: a chi-squared statistic of 23 degrees of freedom, whose
    # 0.999 quantile is 49.7; and so with 4 letters, 1200 of each, 16.3.
    for counts, kinds, most in (
        (Counter(one.options for one in drawn), 24, 49.7),
        (Counter(one.answer for one in drawn), 4, 16.3),
    ):
        expected = 4800 / kinds
        assert len(counts) == kinds
        assert sum((n - expected) ** 2 / expected for n in counts.values()) < most


def test_what_speaks_of_others_stays_and_what_names_them_keeps_all_in_place():
    above = question(("Aspirin", "Heparin", "Warfarin", "None of the above"), "D")
    named = question(("Aspirin", "Heparin", "Both A and B", "Insulin"), "C")
    for draw in range(50):
        assert order_of_draw(above, draw).options[3] == "None of the above"
        assert order_of_draw(above, draw).answer == "D"
        assert order_of_draw(named, draw) == named
    assert len({order_of_draw(above, draw).options for draw in range(50)}) == 6


def test_a_draw_has_further_orders_should_one_not_do():
    several = list(itertools.islice(drawn_orders(question(), 0, 7), 40))
    assert len({one.options for one in several}) > 10
    assert all(right_text(one) == "Heparin" for one in several)
