"""Stored responses scored anew: the same by the same rule, another score by another."""

import json
from pathlib import Path

import pytest
from evaluation.made_up import question, scored

from alphamed_jax.config_io import flags_of
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.rescore import Arguments, rescore
from alphamed_jax.evaluation.results import Head, read_results, write_results
from alphamed_jax.evaluation.rules import RULES

HEAD = Head("org/model", {"name": "cot"}, {"samples": 1}, details={"inside_thought": False})
ASKED = [question("q1", "A"), question("q2", "B"), question("q3", "C"), question("q4", "D")]
SAID = [["A"], ["A thought: the answer is (B)."], ["It is C"], ["cut off"]]


@pytest.fixture
def folder(tmp_path):
    sets = [
        scored(ASKED, SAID, cut=["cut off"], by=("system",), not_asked={"prompt too long": 2}),
        scored(ASKED, [["B"]] * 4, change="order=1"),
    ]
    write_results(tmp_path / "out", HEAD, sets)
    return tmp_path / "out"


def accuracy(path: Path) -> float:
    return read_results(path).raw["benchmarks"]["made-up"]["accuracy"]


def test_the_same_rule_gives_the_same_results(folder, tmp_path):
    rescore(Arguments(folder, "boxed", str(tmp_path / "again")))
    old, new = read_results(folder), read_results(tmp_path / "again")
    assert new.scored == old.scored
    assert {**new.raw, "details": None} == {**old.raw, "details": None}
    assert new.raw["details"]["rescored"] == "first scored by boxed"


def test_another_rule_reads_other_letters_into_a_folder_beside(folder, capsys):
    rescore(Arguments(folder, "answer-is"))
    assert capsys.readouterr().out == f"{folder / 'rescored-answer-is'}\n"
    found = read_results(folder / "rescored-answer-is")
    assert found.head.rule == "answer-is"
    samples = found.scored[0].samples
    assert [(one.letter, one.reason) for one in samples] == [
        (None, "no_phrase"),
        ("B", "ok"),
        (None, "no_phrase"),
        (None, "truncated"),
    ]
    assert found.scored[0].facts == read_results(folder).scored[0].facts
    assert accuracy(folder) == accuracy(folder / "rescored-answer-is") == 0.25
    rescore(Arguments(folder, "last-letter"))
    assert accuracy(folder / "rescored-last-letter") == 0.75


def test_all_rules_stand_side_by_side_in_a_table(folder, capsys):
    rescore(Arguments(folder, "all"))
    table = json.loads((folder / "rescored-all" / "rules.json").read_text("utf-8"))
    assert list(table) == ["made-up", "made-up@order=1"]
    assert list(table["made-up"]) == list(RULES)
    assert {rule: one["accuracy"] for rule, one in table["made-up"].items()} == {
        "boxed": 0.25,
        "boxed-or-text": 0.25,
        "answer-is": 0.25,
        "first-letter": 0.5,
        "last-letter": 0.75,
    }
    printed = capsys.readouterr().out
    assert "| made-up | last-letter | 0.750 |" in printed
    assert "| made-up | last-letter | 0.750 |" in (folder / "rescored-all" / "rules.md").read_text()


def test_scoring_again_replaces_own_results_and_nothing_else(folder, tmp_path):
    for rule in ("boxed", "all"):
        rescore(Arguments(folder, rule))
        rescore(Arguments(folder, rule))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for rule in ("boxed", "all"):
        for output in (folder, tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
            with pytest.raises(UserError, match="holds something else; choose another --output"):
                rescore(Arguments(folder, rule, str(output)))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_unknown_rule_leaves_nothing_behind(folder):
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=r"--rule boxxed: .* Did you mean 'boxed'\?"):
        rescore(Arguments(folder, "boxxed"))
    assert sorted(folder.iterdir()) == before


def test_a_response_that_begins_inside_a_thought_is_read_so_again(tmp_path):
    head = Head("m", {}, {}, details={"inside_thought": True})
    write_results(tmp_path / "out", head, [scored(ASKED[:1], [["A"]])])
    rescore(Arguments(tmp_path / "out", "boxed"))
    sample = read_results(tmp_path / "out" / "rescored-boxed").scored[0].samples[0]
    assert (sample.letter, sample.reason) == (None, "think_not_closed")


def test_the_command_line_names_folder_and_rule():
    read = flags_of(Arguments)
    assert read(["some/DIR", "--rule", "all"], "alphamed evaluate rescore", "") == Arguments(
        Path("some/DIR"), "all"
    )
    with pytest.raises(UserError):
        read(["some/DIR"], "alphamed evaluate rescore", "")
