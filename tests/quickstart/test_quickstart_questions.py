"""The shipped questions: balanced, separate, answerable, and what the code builds."""

import json
from collections import Counter

import pytest

from alphamed_jax import embedded
from alphamed_jax.quickstart.knowledge import CONDITIONS
from alphamed_jax.quickstart.questions import KINDS, build, candidates, fact, to_jsonl

TRAIN, HELDOUT = build()
BY_NAME = {condition.name: condition for condition in CONDITIONS}
STEPS = {kind.name: kind.steps for kind in KINDS}
both = pytest.mark.parametrize("questions", [TRAIN, HELDOUT], ids=["train", "heldout"])


def findings(question):
    listed = question.stem.removeprefix("Findings: ").partition(". ")[0]
    return frozenset(listed.split(", "))


def test_no_held_out_vignette_is_trained_on():
    def vignettes(questions):
        return {(q.meta["condition"], findings(q)) for q in questions}

    assert not vignettes(TRAIN) & vignettes(HELDOUT)


def test_no_combination_of_condition_findings_and_options_is_in_both_splits():
    def combinations(questions):
        return {(q.meta["condition"], findings(q), frozenset(q.options)) for q in questions}

    assert not combinations(TRAIN) & combinations(HELDOUT)


@both
def test_answer_letters_are_balanced(questions):
    counts = Counter(q.answer for q in questions)
    assert set(counts) == set("ABCD")
    assert max(counts.values()) - min(counts.values()) <= len(KINDS)


@both
def test_all_hops_occur_and_every_kind_equally_often(questions):
    assert {q.meta["hops"] for q in questions} == {1, 2, 3}
    assert len(set(Counter(q.meta["kind"] for q in questions).values())) == 1


@both
def test_the_answer_is_what_the_knowledge_base_says(questions):
    for q in questions:
        condition = BY_NAME[q.meta["condition"]]
        assert findings(q) < set(condition.findings)
        assert q.options[q.answer_index] == fact(condition, STEPS[q.meta["kind"]][-1])


@both
def test_options_are_four_different_ones_and_no_other_is_defensible(questions):
    for q in questions:
        condition = BY_NAME[q.meta["condition"]]
        assert len(set(q.options)) == 4
        wrong = [o for i, o in enumerate(q.options) if i != q.answer_index]
        assert not set(wrong) & set(condition.also)
        shown = tuple(sorted(findings(q)))
        assert set(wrong) <= set(candidates(condition, shown, STEPS[q.meta["kind"]][-1]))


@both
def test_ids_are_unique(questions):
    assert len({q.id for q in questions}) == len(questions)


def test_sizes():
    assert len(TRAIN) <= 2000
    assert 200 <= len(HELDOUT) <= 256


@pytest.mark.parametrize(
    ("path", "questions"),
    [(embedded.TRAIN, TRAIN), (embedded.HELDOUT, HELDOUT)],
    ids=["train", "heldout"],
)
def test_shipped_files_are_what_the_code_builds(path, questions):
    assert path.read_bytes() == to_jsonl(questions).encode()
    first = json.loads(path.read_text().splitlines()[0])
    assert set(first) == {"id", "question", "options", "answer", "meta"}
