"""Changed forms of whole sets: what they are named, what is counted, what is refused."""

import pytest

from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.changes import changed_sets
from alphamed_jax.evaluation.sets import QuestionSet

TEXTS = {
    "q1": ("Aspirin", "Heparin", "Warfarin", "Insulin"),
    "q2": ("Fever", "Cough", "Rash", "None of the above"),
    "q3": ("Fever", "Cough", "Rash", "Both A and B"),
    "q4": ("yes", "no"),
}


def base(names=tuple(TEXTS)) -> QuestionSet:
    return QuestionSet(
        variant="mine",
        questions=tuple(
            Question(id=name, stem=f"Stem {name}", options=TEXTS[name], answer="A", source="s")
            for name in names
        ),
        rows=9,
        origin="mine.jsonl",
        seed=5,
        notes={"rows that stand twice": 1},
    )


def test_orders_are_sets_of_their_own_with_all_questions():
    sets = changed_sets([base()], ["order=2"], seed=1)

    assert [one.name for one in sets] == ["mine@order=1", "mine@order=2"]
    for one in sets:
        assert [question.id for question in one.questions] == ["q1", "q2", "q3", "q4"]
        assert one.questions[0].options != TEXTS["q1"]
        assert one.questions[1].options[3] == "None of the above"
        assert one.questions[2].options == TEXTS["q3"]
        assert one.questions[3].options == ("no", "yes")
        assert one.questions[3].answer == "B"
        assert (one.rows, one.seed, one.origin) == (9, 5, "mine.jsonl")
        assert one.notes == {
            "rows that stand twice": 1,
            "not reordered: options name others by letter or number": 1,
        }
    assert sets[0].questions[0].options != sets[1].questions[0].options


def test_questions_without_the_form_are_left_out_and_counted():
    none, fewer = changed_sets([base()], ["none-of-the-above", "fewer-options"], seed=1)

    assert none.name == "mine@none-of-the-above"
    assert [question.id for question in none.questions] == ["q1", "q4"]
    assert none.questions[0].options == ("None of the above", "Heparin", "Warfarin", "Insulin")
    assert none.notes == {
        "rows that stand twice": 1,
        "left out: an option speaks of all others": 1,
        "left out: options name others by letter or number": 1,
    }
    assert fewer.name == "mine@fewer-options=2"
    assert [question.id for question in fewer.questions] == ["q1"]
    assert len(fewer.questions[0].options) == 2
    assert fewer.notes["left out: no more options than are to be left"] == 1


def test_sets_come_in_the_order_of_the_benchmarks_then_of_the_variants():
    two = [base(), QuestionSet("other", base(("q1",)).questions, 1, "other.jsonl")]

    names = [one.name for one in changed_sets(two, ["fewer-options=3", "order=1"], seed=0)]

    assert names == [
        "mine@fewer-options=3",
        "mine@order=1",
        "other@fewer-options=3",
        "other@order=1",
    ]
    assert changed_sets(two, [], seed=0) == ()


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (["ordr=2"], "'ordr=2', expected order=N.*Did you mean 'order'?"),
        (["none"], "'none', expected"),
        (["order"], "say how many orders, as order=4"),
        (["order=0"], "whole number from 1 after order="),
        (["order=two"], "whole number from 1 after order="),
        (["order="], "whole number from 1 after order="),
        (["fewer-options=1"], "whole number from 2 after fewer-options="),
        (["none-of-the-above=2"], "none-of-the-above takes no number"),
        (["order=2", "order=3"], "names order 2 times"),
    ],
)
def test_a_variant_that_is_none_is_refused(variants, message):
    with pytest.raises(UserError, match=message):
        changed_sets([base()], variants, seed=0)


def test_a_variant_that_changes_nothing_is_refused():
    with pytest.raises(UserError, match=r"order=1 changes no question of mine \(1 not reordered"):
        changed_sets([base(("q3",))], ["order=1"], seed=0)
    with pytest.raises(UserError, match=r"fewer-options=2 changes no question of mine \(1 left"):
        changed_sets([base(("q4",))], ["fewer-options"], seed=0)
