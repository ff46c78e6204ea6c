"""An evaluation of the quickstart model: cut anywhere it goes on, and ends as if it were whole."""

import dataclasses
import io
import json

import jax
import pytest
from rich.console import Console

from alphamed_jax import embedded
from alphamed_jax.data.questions import own_question
from alphamed_jax.data.rows import read_rows
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation import run
from alphamed_jax.evaluation.journal import NAME as JOURNAL
from alphamed_jax.evaluation.journal import Journal
from alphamed_jax.evaluation.sets import QuestionSet
from alphamed_jax.evaluation.settings import Settings
from alphamed_jax.evaluation.subject import find_subject

QUESTIONS = tuple(own_question(row, "quickstart") for _, row in read_rows(embedded.HELDOUT))


def a_set(name="one", first=0, count=12):
    return QuestionSet(name, QUESTIONS[first : first + count], count, "questions_heldout.jsonl")


def settings(output, **changes):
    defaults = {"model": "quickstart", "benchmarks": ("one", "two"), "mesh": "8x1", "slots": 16}
    defaults |= {"samples": 2, "temperature": 1.0, "output": str(output)}
    return Settings(**(defaults | changes))


SETS = (a_set(), a_set("two", first=12, count=8))


def evaluated(given, sets=SETS):
    """Run it in this process; returns what was printed."""
    console = Console(file=io.StringIO(), width=200)
    run.evaluate(run.prepare(given, find_subject("quickstart"), sets), console)
    return console.file.getvalue()


def results(folder):
    """The files of a folder without what a clock decides."""
    found = {path.name: path.read_text() for path in folder.glob("*.samples.jsonl")}
    said = json.loads((folder / "results.json").read_text())
    return found | {"results": {name: value for name, value in said.items() if name != "cost"}}


def responses(folder, name):
    rows = [json.loads(line) for line in (folder / f"{name}.samples.jsonl").open()]
    return {(row["doc"]["id"], row["sample"]): row["resps"][0][0] for row in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An evaluation that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "results"
    printed = evaluated(settings(folder))
    assert "40 responses in" in printed
    return folder


class Cut(Exception):
    """What ends an evaluation here."""


def test_cut_after_any_response_it_goes_on_and_ends_as_the_uninterrupted_one(
    whole, tmp_path, monkeypatch
):
    # Given an evaluation that was cut twice, the second time within a line of its journal,
    folder = tmp_path / "results"
    for most in (5, 21):
        added = []

        def add(self, *row, most=most, added=added, add=Journal.add):
            if len(added) == most:
                raise Cut
            add(self, *row)
            added.append(row)

        with monkeypatch.context() as patched:
            patched.setattr(Journal, "add", add)
            with pytest.raises(Cut):
                evaluated(settings(folder))
    with (folder / JOURNAL).open("a") as file:
        file.write('{"set": "one", "id"')
    # when the same command is given once more,
    printed = evaluated(settings(folder))
    # then it samples what is missing, and no file tells of the cuts.
    assert "goes on after 26 of 40 responses" in printed
    assert "14 responses in" in printed
    assert results(folder) == results(whole)
    assert not (folder / JOURNAL).exists()


def test_a_finished_one_says_so_and_a_foreign_one_is_refused_with_what_differs(whole):
    before = results(whole)
    assert "is finished" in evaluated(settings(whole))
    for changes, said in (
        ({"seed": 1}, "seed 0, but now it is 1"),
        ({"prompt": "plain"}, "prompt 'as trained', but now it is 'plain'"),
        ({"max_new_tokens": 25}, "max_new_tokens 24, but now it is 25"),
    ):
        with pytest.raises(UserError, match=said):
            evaluated(settings(whole, **changes))
    other = dataclasses.replace(QUESTIONS[0], answer="A")
    sets = (dataclasses.replace(SETS[0], questions=(other, *QUESTIONS[1:12])), SETS[1])
    with pytest.raises(UserError, match="answers to the one questions"):
        evaluated(settings(whole), sets)
    assert results(whole) == before


@pytest.mark.slow
def test_what_a_question_samples_depends_on_no_other_question_slots_or_mesh(whole, tmp_path):
    # Given fewer questions of one benchmark, other slots and another mesh,
    jax.clear_caches()
    few = settings(tmp_path / "few", slots=8, mesh="4x2", prompts_at_once=4)
    evaluated(few, (a_set(first=3, count=4),))
    # then they sample what they did among all.
    found = responses(tmp_path / "few", "one")
    assert len(found) == 8
    assert found.items() <= responses(whole, "one").items()
