"""What was planted is found, look-alikes are not; the figures of docs/data.md are these."""

import re

import pytest
from conftest import REPOSITORY
from planted import BENCHMARK, LEAKED, LOOK_ALIKES, question

from alphamed_jax.curation.overlap import compare
from alphamed_jax.curation.texts import entries

MISSED = {"told anew", "every fifth word changed"}
FALSE_HITS = {"one syllable"}


@pytest.fixture(scope="module")
def found():
    """Question -> (kind, id in the benchmark) of what the comparison says."""
    planted = [*LEAKED, *LOOK_ALIKES]
    others = entries(BENCHMARK)
    compared = compare(entries([one.question for one in planted]), others)
    hits: dict[str, dict[str, str]] = {one.how: {} for one in planted}
    for one in compared.overlaps:
        hits[planted[one.item].how][others[one.other].question.id] = one.kind
    return hits


def test_all_that_was_planted_is_found_but_what_was_told_in_other_words(found):
    missed = {one.how for one in LEAKED if one.of not in found[one.how]}
    assert missed == MISSED


def test_look_alikes_are_no_overlap_but_those_that_differ_in_a_syllable(found):
    assert {one.how for one in LOOK_ALIKES if found[one.how]} == FALSE_HITS
    assert all(set(found[one.how]) <= {one.of} for one in LEAKED)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("copied", "exact"),
        ("lines wrapped", "exact"),
        ("case and marks", "exact"),
        ("accents and tags", "exact"),
        ("options swapped", "exact"),
        ("behind an abstract", "exact"),
        ("a few words changed", "near"),
        ("words changed, options agree", "near"),
        ("a piece within another text", "substring"),
        ("within an instruction", "near"),
    ],
)
def test_a_pair_is_reported_once_as_the_strongest_kind(found, how, kind):
    assert list(found[how].values()) == [kind]


def test_precision_and_recall_are_those_of_the_docs(found):
    right = len(LEAKED) - len(MISSED)
    recall, precision = right / len(LEAKED), right / (right + len(FALSE_HITS))
    text = (REPOSITORY / "docs" / "data.md").read_text("utf-8")
    stated = re.search(r"precision is (0\.\d\d) and recall (0\.\d\d)", text)
    assert stated is not None
    assert stated.groups() == (f"{precision:.2f}", f"{recall:.2f}") == ("0.93", "0.88")
    assert f"which hold {len(LEAKED)} leaked ones" in text
    assert f"and {len(LOOK_ALIKES)} look-alikes, precision is" in text


def test_duplicates_within_a_set_need_one_answer_and_contradictions_are_told():
    stem = "Which vessel of the foot is felt between the first two toes when walking barefoot?"
    options = ("Dorsalis pedis", "Sural", "Femoral", "Popliteal")
    items = entries(
        [
            question("first", stem, options),
            question("again", stem.upper(), options[::-1], "D"),
            question("near", stem.replace("felt", "best felt"), options),
            question("against", stem, options, "B"),
            question("generic", "Which is true?", ("Iron rusts", "Gold rusts")),
            question("generic too", "Which is true?", ("Milk is white", "Tea is blue")),
        ]
    )
    names = [item.question.id for item in items]
    compared = compare(items, [])
    assert compared.overlaps == []
    assert {
        (names[one.first], names[one.item]): (one.kind, one.same_answer)
        for one in compared.duplicates
    } == {
        ("first", "again"): ("exact", True),
        ("first", "near"): ("near", True),
        ("again", "near"): ("near", True),
        ("first", "against"): ("exact", False),
    }


def test_all_of_the_above_makes_two_short_questions_neither_one_nor_contradictory():
    above = "All of the above"
    items = entries(
        [
            question("a", "True is", ("Iron rusts", "Tin is grey", above), "C"),
            question("b", "True is", ("Milk is white", "Tea is brown", above), "C"),
            question("c", "True is", ("Iron rusts", "Tin is grey", above), "C"),
        ]
    )
    assert [(one.first, one.item, one.same_answer) for one in compare(items, []).duplicates] == [
        (0, 2, True)
    ]
