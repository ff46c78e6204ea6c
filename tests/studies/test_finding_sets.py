"""Training sets of the finding are what they say, and hold nothing of the held-out questions."""

from collections import Counter

import pytest

from alphamed_jax.data.sources import load_all
from alphamed_jax.quickstart.questions import build
from alphamed_jax.studies.sets import MULTI_HOP, ONE_HOP, of_kinds, with_wrong_labels, write_set

TRAIN, HELDOUT = build()
RIGHT = {question.id: question.answer for question in TRAIN}


def vignette(question):
    findings = question.stem.removeprefix("Findings: ").split(". ")[0]
    return question.meta["condition"], frozenset(findings.split(", "))


@pytest.mark.parametrize(
    ("kinds", "each"), [(ONE_HOP, 336), (MULTI_HOP, 112), ((*ONE_HOP, *MULTI_HOP), 84)]
)
def test_a_set_holds_as_many_distinct_questions_of_each_of_its_kinds(kinds, each):
    made = of_kinds(kinds, seed=1)
    assert Counter(question.meta["kind"] for question in made) == dict.fromkeys(kinds, each)
    assert len({question.id for question in made}) == len(made) == 336
    assert all(RIGHT[question.id] == question.answer for question in made)


def test_one_hop_is_the_diagnosis_and_all_else_takes_more():
    assert ONE_HOP == ("diagnosis",)
    assert MULTI_HOP == ("treatment", "test", "mechanism")
    assert {q.meta["hops"] for q in of_kinds(MULTI_HOP, 0)} == {2, 3}


@pytest.mark.parametrize(("percent", "wrong"), [(0, 0), (10, 134), (30, 403)])
def test_exactly_so_many_labels_are_wrong_and_each_is_a_letter_of_the_question(percent, wrong):
    made = with_wrong_labels(percent, seed=2)
    assert [question.id for question in made] == [question.id for question in TRAIN]
    changed = [question for question in made if question.answer != RIGHT[question.id]]
    assert len(changed) == wrong
    assert {question.answer for question in changed} <= set("ABCD")


def test_more_wrong_labels_hold_the_fewer_ones():
    some, more = (
        {(q.id, q.answer) for q in with_wrong_labels(percent, 0) if q.answer != RIGHT[q.id]}
        for percent in (10, 30)
    )
    assert some < more


def test_a_set_is_a_function_of_its_name_and_the_seed():
    assert of_kinds(MULTI_HOP, 0) == of_kinds(MULTI_HOP, 0) != of_kinds(MULTI_HOP, 1)
    assert with_wrong_labels(10, 0) == with_wrong_labels(10, 0) != with_wrong_labels(10, 1)
    assert with_wrong_labels(0, 0) == with_wrong_labels(0, 1)


def test_no_vignette_of_a_set_is_held_out():
    held = {vignette(question) for question in HELDOUT}
    assert len(HELDOUT) == 240
    for made in (*(of_kinds(kinds, 0) for kinds in (ONE_HOP, MULTI_HOP)), with_wrong_labels(30, 0)):
        assert not held & {vignette(question) for question in made}


def test_kinds_that_do_not_divide_the_questions_are_refused():
    with pytest.raises(ValueError, match="100 questions of 3 kinds"):
        of_kinds(MULTI_HOP, 0, questions=100)


def test_training_takes_every_question_of_a_written_set(tmp_path):
    write_set(tmp_path / "sets" / "wrong.jsonl", made := with_wrong_labels(30, 0))
    loaded = load_all([str(tmp_path / "sets" / "wrong.jsonl")], 0, 0)
    assert {(q.id, q.answer) for q in loaded.train} == {(q.id, q.answer) for q in made}
    assert not loaded.dropped
