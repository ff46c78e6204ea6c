"""Robustness: an answer follows its option through the orders, or figures say that it does not."""

import pytest
from evaluation.made_up import question, scored
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.data.questions import LETTERS, Question, shuffle_options
from alphamed_jax.evaluation.results import Head, results_of
from alphamed_jax.evaluation.robustness import COLUMNS, robustness, robustness_lines
from alphamed_jax.evaluation.tables import tables
from alphamed_jax.intervals import wilson_interval

FOUR = [question(f"q{i}", "ABCD"[i]) for i in range(4)]


def turned(one: Question, by: int) -> Question:
    """The options moved down by some places, round and round."""
    size = len(one.options)
    places = [(place - by) % size for place in range(size)]
    answer = LETTERS[(one.answer_index + by) % size]
    return Question(one.id, one.stem, tuple(one.options[p] for p in places), answer, one.source)


def asked(questions, responses, change=""):
    return scored(questions, [[text] for text in responses], change=change)


def orders(responses):
    """The four questions with options moved by 1, 2, ..., and one response to each."""
    return [
        asked([turned(one, by) for one in FOUR], said, change=f"order={by}")
        for by, said in enumerate(responses, 1)
    ]


def test_a_model_that_knows_the_option_is_consistent():
    found = robustness(asked(FOUR, "ABCD"), orders(["BCDA", "CDAB"]))["orders"]

    assert (found["orders"], found["questions"], found["left_out"]) == (2, 4, 0)
    assert (found["accuracy"], found["original_accuracy"], found["difference"]) == (1, 1, 0)
    assert (found["consistency"], found["flip_rate"]) == (1, 0)
    assert (found["right_to_wrong"], found["wrong_to_right"]) == (0, 0)
    assert found["interval"] == list(wilson_interval(1.0, 4))


def test_a_model_that_knows_the_letter_alone_is_not():
    found = robustness(asked(FOUR, "AAAA"), orders(["AAAA", "AAAA", "AAAA"]))["orders"]

    # Each question has its right option at A in one of the four orders.
    assert found["original_accuracy"] == 0.25
    assert found["accuracy"] == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 3) / 4)
    assert found["consistency"] == 0
    assert found["flip_rate"] == 1
    assert found["right_to_wrong"] == 0.25
    assert found["wrong_to_right"] == pytest.approx(0.25)
    assert {letter: one["accuracy"] for letter, one in found["by_position"].items()} == {
        "A": 1.0,
        "B": 0.0,
        "C": 0.0,
        "D": 0.0,
    }
    assert found["by_position"]["A"]["responses"] == 4


def test_an_answer_that_is_missing_is_neither_consistent_nor_another_one():
    found = robustness(asked(FOUR, ["A", "B", "C", "?!"]), orders([["?!", "C", "A", "A"]]))[
        "orders"
    ]

    # q0: an answer, then none. q1: the same option. q2: another one. q3: none, then right.
    assert found["consistency"] == 0.25
    assert found["flip_rate"] == 0.5
    assert found["right_to_wrong"] == 0.5
    assert found["wrong_to_right"] == 0.25
    assert found["difference"] == pytest.approx(-0.25)


def test_questions_without_another_order_say_nothing_about_orders():
    stays = question("stays", "A")
    base = asked([*FOUR, stays], "ABCDA")
    (moved,) = orders(["AAAA"])
    changed = asked([*(one.question for one in moved.samples), stays], "AAAAA", "order=1")

    found = robustness(base, [changed])["orders"]

    assert (found["questions"], found["left_out"]) == (4, 1)
    assert found["accuracy"] == 0.25


def test_samples_are_paired_by_question_and_number():
    base = scored(FOUR[:2], [["A", "B"], ["B", "A"]])
    same = scored([turned(one, 1) for one in FOUR[:2]], [["B", "C"], ["C", "B"]], change="order=1")
    crossed = scored(
        [turned(one, 1) for one in FOUR[:2]], [["C", "B"], ["B", "C"]], change="order=1"
    )

    assert robustness(base, [same])["orders"]["consistency"] == 1
    assert robustness(base, [same])["orders"]["flip_rate"] == 0
    # As many right samples of each question, but not the same ones.
    assert robustness(base, [crossed])["orders"]["accuracy"] == 0.5
    assert robustness(base, [crossed])["orders"]["flip_rate"] == 1


def test_another_form_is_compared_on_the_questions_that_have_it():
    none = asked(FOUR[1:], "AAC", change="none-of-the-above")

    found = robustness(asked(FOUR, "ABCD"), [none])["none-of-the-above"]

    assert (found["questions"], found["left_out"]) == (3, 1)
    assert found["original_accuracy"] == 1
    assert found["accuracy"] == 0
    assert found["difference"] == -1
    assert found["difference_interval"] == [-1, -1]
    assert found["right_to_wrong"] == 1


def test_every_figure_has_a_row_with_as_many_cells_as_columns():
    figures = robustness(
        asked(FOUR, "ABCD"),
        [*orders(["BCDA"]), asked(FOUR[1:], "AAC", change="fewer-options=2")],
    )

    rows = robustness_lines(figures)

    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[0] == ("1 order", "4", "accuracy", "1.000", "0.510 to 1.000")
    assert ("1 order", "4", "same option in every order", "1.000", "0.510 to 1.000") in rows
    assert ("fewer-options=2", "3", "difference", "-1.000", "-1.000 to -1.000") in rows
    assert ("1 order", "2", "accuracy where B is right", "1.000", "0.342 to 1.000") in rows


def test_forms_of_another_benchmark_are_refused():
    base = asked(FOUR, "ABCD")
    with pytest.raises(ValueError, match="no changed form"):
        robustness(base, [scored(FOUR, [["A"]] * 4, variant="other", change="order=1")])
    with pytest.raises(ValueError, match="no changed form"):
        robustness(base, [base])


@given(st.lists(st.sampled_from("ABCD"), min_size=4, max_size=4), st.integers(0, 99))
def test_whoever_answers_the_same_option_is_consistent_in_any_order(letters, seed):
    shuffled = [shuffle_options(one, seed) for one in FOUR]
    texts = [one.options[LETTERS.index(x)] for one, x in zip(FOUR, letters, strict=True)]
    follow = [LETTERS[one.options.index(text)] for one, text in zip(shuffled, texts, strict=True)]

    found = robustness(asked(FOUR, letters), [asked(shuffled, follow, "order=1")])["orders"]

    if found["questions"]:
        assert (found["consistency"], found["flip_rate"], found["difference"]) == (1, 0, 0)


def test_the_figures_stand_in_the_results_under_their_benchmark_and_in_their_tables():
    head = Head("a model", {"name": "plain"}, {"seed": 3})
    base, changed = asked(FOUR, "ABCD"), orders(["BCDA"])

    results = results_of(head, [*changed, base])

    assert results["benchmarks"]["made-up"]["robustness"] == robustness(base, changed, 3)
    (table,) = (table for table in tables(results) if table.title == "Robustness")
    assert table.rows[0] == ("made-up", "1 order", "4", "accuracy", "1.000", "0.510 to 1.000")
    assert not any(table.title == "Robustness" for table in tables(results_of(head, [base])))
