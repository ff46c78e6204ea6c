"""The knowledge base is complete, and every vignette has one right answer."""

from itertools import combinations

import pytest

from alphamed_jax.quickstart.knowledge import CONDITIONS, MECHANISMS

TESTS = {condition.test for condition in CONDITIONS}
NAMES = [condition.name for condition in CONDITIONS]
TERMS = [
    *NAMES,
    *MECHANISMS,
    *MECHANISMS.values(),
    *TESTS,
    *(finding for condition in CONDITIONS for finding in condition.findings),
]


def test_there_are_enough_conditions_drugs_mechanisms_and_tests():
    assert len(CONDITIONS) >= 40
    assert len(MECHANISMS) >= 30
    assert len(set(MECHANISMS.values())) >= 16
    assert len(TESTS) >= 20


def test_each_condition_stands_once_with_five_different_findings():
    assert len(set(NAMES)) == len(NAMES)
    for condition in CONDITIONS:
        assert len(set(condition.findings)) == 5, condition.name


def test_each_condition_has_a_drug_with_a_mechanism_and_a_test():
    for condition in CONDITIONS:
        assert condition.treatment in MECHANISMS, condition.name
        assert condition.test, condition.name


def test_every_drug_is_the_first_line_of_some_condition():
    assert set(MECHANISMS) == {condition.treatment for condition in CONDITIONS}


def test_what_is_defensible_as_well_names_entries_of_the_table():
    for condition in CONDITIONS:
        unknown = set(condition.also) - {*MECHANISMS, *TESTS, *NAMES}
        assert not unknown, condition.name
        assert not {condition.treatment, condition.test, condition.name} & set(condition.also)


def test_three_findings_identify_the_condition():
    owner = {}
    for condition in CONDITIONS:
        for triple in combinations(sorted(condition.findings), 3):
            assert owner.setdefault(triple, condition.name) == condition.name


@pytest.mark.parametrize("mark", [",", ".", ":", "?", "(", "{", "}", "\\", "\n"])
def test_terms_hold_no_mark_that_would_split_them(mark):
    assert not [term for term in TERMS if mark in term]
