"""The order of questions depends on seed and cursor alone; what is held out stays out."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.data.order import batch_indices, choose, epoch_order, hold_out, plain_text
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError


def make(count: int, texts: int | None = None) -> list[Question]:
    """Make questions of which those with equal remainder by `texts` share their text."""
    return [
        Question(f"q{i}", f"Question {i % (texts or count)}?", ("x", f"y{i}"), "A", "test")
        for i in range(count)
    ]


@given(
    seed=st.integers(0, 2**70),
    size=st.integers(1, 30),
    cuts=st.lists(st.integers(0, 40), max_size=8),
)
def test_any_way_of_cutting_gives_the_same_sequence(seed: int, size: int, cuts: list[int]):
    whole = batch_indices(seed, size, 0, sum(cuts))

    pieces, cursor = [], 0
    for count in cuts:
        pieces += batch_indices(seed, size, cursor, count)
        cursor += count

    assert pieces == whole


@given(seed=st.integers(), size=st.integers(1, 50), epoch=st.integers(0, 1000))
def test_each_epoch_visits_each_question_once(seed: int, size: int, epoch: int):
    assert sorted(batch_indices(seed, size, epoch * size, size)) == list(range(size))


def test_epochs_and_seeds_differ():
    orders = {
        tuple(batch_indices(seed, 50, 50 * epoch, 50)) for seed in range(5) for epoch in range(5)
    }

    assert len(orders) == 25


def test_the_order_is_the_same_on_every_machine_and_version():
    # Written down: a change would silently give a resumed run other questions.
    assert epoch_order(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert epoch_order(7, 3, 8).tolist() == [2, 5, 7, 3, 0, 6, 4, 1]


def test_every_position_is_equally_likely():
    first = [batch_indices(seed, 4, 0, 1)[0] for seed in range(2000)]

    assert all(400 < first.count(index) < 600 for index in range(4))


@pytest.mark.parametrize(("size", "cursor", "count"), [(0, 0, 1), (3, -1, 1), (3, 0, -1)])
def test_impossible_requests_are_refused(size: int, cursor: int, count: int):
    with pytest.raises(ValueError, match="expected"):
        batch_indices(0, size, cursor, count)


def test_holding_out_splits_without_overlap_and_keeps_the_order_of_training():
    questions = make(100)

    train, heldout = hold_out(questions, 20, seed=0)

    assert len(heldout) == 20
    assert [q for q in questions if q not in heldout] == list(train)


def test_what_is_held_out_does_not_depend_on_the_order_of_the_file():
    questions = make(100, texts=60)
    shuffled = random.Random(0).sample(questions, len(questions))

    assert hold_out(questions, 20, seed=3)[1] == hold_out(shuffled, 20, seed=3)[1]
    assert choose(questions, 20, seed=3) == choose(shuffled, 20, seed=3)


def test_another_seed_holds_out_other_questions():
    questions = make(100)

    assert set(hold_out(questions, 20, seed=0)[1]) != set(hold_out(questions, 20, seed=1)[1])


@given(count=st.integers(1, 29), texts=st.integers(3, 30), seed=st.integers(0, 100))
def test_questions_with_one_text_are_never_on_both_sides(count: int, texts: int, seed: int):
    questions = [
        dataclasses.replace(q, stem=q.stem.upper() + "  " if i % 2 else q.stem)
        for i, q in enumerate(make(30, texts))
    ]
    try:
        train, heldout = hold_out(questions, count, seed)
    except UserError:
        assert count < 30 / texts  # each text has more questions than may be held out
        return

    assert not {plain_text(q) for q in train} & {plain_text(q) for q in heldout}
    assert 0 < len(heldout) <= count
    assert len(train) + len(heldout) == 30


def test_holding_out_nothing_keeps_everything():
    assert hold_out(make(3), 0, seed=0) == (tuple(make(3)), ())


def test_holding_out_everything_is_refused():
    with pytest.raises(UserError, match=r"cannot hold out 10 of 10 questions; lower eval\.quest"):
        hold_out(make(10), 10, seed=0)


def test_choosing_more_than_there_are_gives_all():
    assert set(choose(make(3), 10, seed=0)) == set(make(3))
