"""Which results stand side by side: same questions, same numbers of samples, nothing averaged."""

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation.made_up import question, scored

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.pairing import Evaluated, check_alike, names_of, pairs_of, read_folders
from alphamed_jax.evaluation.results import Head

TWO = [question("q1", "A"), question("q2", "B")]


def evaluated(name, *sets, rule="boxed", **sampling):
    head = Head(f"models/{name}", {"name": "plain"}, sampling, rule)
    return Evaluated(name, Path("runs") / name, head, {one.facts.name: one for one in sets})


def test_pairs_are_made_by_question_and_sample_number_wherever_a_sample_stands():
    base = scored(TWO, [["A", "B"], ["C", "D"]])
    other = scored(TWO, [["B", "A"], ["D", "C"]])
    turned = replace(other, samples=[other.samples[i] for i in (1, 0, 3, 2)])

    for two in (other, turned):
        pairs = pairs_of(base, two)
        assert [[(a.letter, b.letter) for a, b in one] for one in pairs] == [
            [("A", "B"), ("B", "A")],
            [("C", "D"), ("D", "C")],
        ]


def test_rows_with_other_ids_are_the_same_questions_where_their_content_is():
    renamed = [replace(one, id=f"row {one.id}") for one in TWO]

    pairs = pairs_of(scored(TWO, [["A"], ["B"]]), scored(renamed, [["A"], ["C"]]))

    assert [[(a.letter, b.letter) for a, b in one] for one in pairs] == [[("A", "A")], [("B", "C")]]


def test_other_questions_are_refused_by_folder_benchmark_and_fingerprint():
    a = evaluated("a", scored(TWO, [["A"], ["B"]], variant="medqa"))
    b = evaluated("b", scored(TWO, [["A"], ["B"]], variant="medqa"))
    other = scored(TWO[:1], [["A"]], variant="medqa", not_asked={"prompt too long": 1})
    c = evaluated("c", other)

    assert check_alike([a, b]) == (["medqa"], [])
    with pytest.raises(UserError) as refused:
        check_alike([a, b, c])
    message = str(refused.value)
    assert message.startswith(
        "runs/c was asked other questions of medqa than runs/a: 1 question (1"
    )
    assert other.facts.fingerprint[:12] in message
    assert a.sets["medqa"].facts.fingerprint[:12] in message
    assert "not 2 questions with" in message


def test_other_numbers_of_samples_are_refused():
    a = evaluated("a", scored(TWO, [["A"], ["B"]]))
    b = evaluated("b", scored(TWO, [["A", "A"], ["B", "C"]]))

    with pytest.raises(UserError, match="runs/b has 2 samples of each question of made-up and ru"):
        check_alike([a, b])


def test_what_not_all_were_asked_is_left_out_and_said():
    one, two = scored(TWO, [["A"], ["B"]], variant="one"), scored([], [], variant="two")
    a = evaluated("a", two, one)
    b = evaluated("b", one, scored(TWO, [["A"], ["B"]], variant="two"))

    assert check_alike([a, b]) == (["one"], ["two is left out: not asked in a"])
    with pytest.raises(UserError, match="no benchmark that all folders have: runs/a has one; runs"):
        check_alike([evaluated("a", one), evaluated("b", two)])


def test_changed_forms_stand_behind_the_benchmarks():
    sets = [
        scored(TWO, [["A"], ["B"]], variant=variant, change=change)
        for variant, change in (("x", ""), ("x", "order=1"), ("y", ""))
    ]

    assert check_alike([evaluated("a", *sets), evaluated("b", *sets)])[0] == ["x", "y", "x@order=1"]


def test_what_else_differs_is_said():
    one = scored(TWO, [["A"], ["B"]])
    a = evaluated("a", one, max_new_tokens=512, temperature=0.0, seed=1)
    b = evaluated("b", one, max_new_tokens=64, temperature=0.0, seed=2, rule="answer-is")

    assert check_alike([a, b])[1] == [
        "a is scored by the rule boxed, b by answer-is: `alphamed evaluate rescore` gives both the "
        "same",
        "a has --max-new-tokens 512, b 64",
    ]


def test_folders_have_names_of_their_own():
    assert names_of([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert names_of([Path("x/eval"), Path("y/eval")]) == ["x/eval", "y/eval"]
    assert names_of([Path("a"), Path("a")]) == ["a", "a (2)"]


def test_one_folder_is_not_enough(tmp_path):
    with pytest.raises(UserError, match="1 folder to compare, expected two or more"):
        read_folders([tmp_path])
