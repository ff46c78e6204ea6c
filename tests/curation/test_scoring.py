"""A scoring by the quickstart model: cut anywhere it goes on, and ends as if it were whole."""

import dataclasses
import io
import json

import pytest
from helpers import write_first_questions
from pyarrow import parquet
from rich.console import Console

from alphamed_jax.curation.score_file import read_columns, read_head
from alphamed_jax.curation.score_journal import NAME as JOURNAL
from alphamed_jax.curation.score_journal import ScoreJournal
from alphamed_jax.curation.score_settings import ScoreSettings
from alphamed_jax.curation.scoring import limited, score_questions
from alphamed_jax.data.order import choose
from alphamed_jax.data.sources import load_all
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.subject import find_subject

QUESTIONS, SAMPLES = 12, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first questions of the quickstart, as a file of our own schema."""
    return write_first_questions(tmp_path_factory.mktemp("data") / "some.jsonl", QUESTIONS)


def settings(data, output, /, **changes):
    defaults = {"model": "quickstart", "data": (str(data),), "mesh": "8x1", "slots": 16}
    defaults |= {"samples": SAMPLES, "output": str(output)}
    return ScoreSettings(**(defaults | changes))


def scored(given):
    """Score in this process; returns what was printed."""
    console = Console(file=io.StringIO(), width=200)
    score_questions(given, find_subject("quickstart"), console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A scoring that was never interrupted, and what it printed."""
    folder = tmp_path_factory.mktemp("whole") / "scores"
    return folder, scored(settings(data, folder))


class Cut(Exception):
    """What ends a scoring here."""


def cut_after(monkeypatch, most, error):
    added = []

    def add(self, counts, add=ScoreJournal.add):
        if len(added) == most:
            raise error
        add(self, counts)
        added.append(counts)

    monkeypatch.setattr(ScoreJournal, "add", add)


def test_the_scores_say_of_each_question_what_it_is_and_how_it_was_answered(whole, data):
    folder, printed = whole
    assert f"{QUESTIONS * SAMPLES} responses in" in printed
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "report.html",
        "scores.json",
        "scores.parquet",
        "settings.json",
    ]
    table = parquet.read_table(folder / "scores.parquet").to_pylist()
    rows = [json.loads(line) for line in data.open()]
    assert len(table) == len(rows) == QUESTIONS
    for row, given in zip(table, rows, strict=True):
        assert (row["question"], row["options"]) == (given["question"], list(given["options"]))
        assert (row["answer"], row["source"]) == (given["answer"], "some")
        assert 0 <= row["passes"] <= SAMPLES - row["no_answer"]
        assert SAMPLES <= row["tokens"] <= SAMPLES * 24
        assert 0 < row["question_tokens"] < row["prompt_tokens"]
        assert row["level"] == {0: 6, 1: 4, 2: 3, 3: 1}[row["passes"]]
    head = read_head(folder / "scores.parquet")
    assert (head.model, head.samples, head.questions) == ("quickstart", SAMPLES, QUESTIONS)
    assert head.sources == {"some": QUESTIONS}
    assert head.prompt["name"] == "as trained"
    assert head.sampling["temperature"] == 1.0


def test_the_summary_adds_up_and_the_page_shows_its_histograms(whole):
    folder, _ = whole
    block = json.loads((folder / "scores.json").read_text())["by_source"]["some"]
    columns = read_columns(folder / "scores.parquet", ("passes", "level", "question_tokens"))
    assert sum(block["levels"].values()) == sum(block["passes"]) == QUESTIONS
    assert sum(block["question_lengths"]["counts"]) == QUESTIONS
    assert block["levels"]["L1"] == (columns["passes"] == SAMPLES).sum()
    assert block["pass_rate"] == columns["passes"].sum() / (QUESTIONS * SAMPLES)
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3
    assert 'aria-label="Level of some"' in page
    assert "<script" not in page


def test_cut_after_any_question_it_goes_on_and_ends_as_the_uninterrupted_one(
    whole, data, tmp_path, monkeypatch
):
    # Given a scoring that was cut twice, the second time within a record of its journal,
    folder = tmp_path / "scores"
    for most in (2, 5):
        with monkeypatch.context() as patched:
            cut_after(patched, most, Cut())
            with pytest.raises(Cut):
                scored(settings(data, folder))
    with (folder / JOURNAL).open("ab") as file:
        file.write(b"torn")
    # when the same command is given once more,
    printed = scored(settings(data, folder))
    # then it samples what is missing, and no file tells of the cuts.
    assert "4 bytes at its end were torn" in printed
    assert f"goes on after 7 of {QUESTIONS} questions" in printed
    assert "15 responses in" in printed
    tables = [parquet.read_table(one / "scores.parquet") for one in (folder, whole[0])]
    assert tables[0].equals(tables[1], check_metadata=True)
    assert not (folder / JOURNAL).exists()
    assert "is finished" in scored(settings(data, folder))


def test_a_full_disk_is_one_line_and_what_was_scored_is_kept(whole, data, tmp_path, monkeypatch):
    folder = tmp_path / "scores"
    with monkeypatch.context() as patched:
        cut_after(patched, 4, OSError(28, "No space left on device"))
        with pytest.raises(UserError) as full:
            scored(settings(data, folder))
    assert str(full.value) == (
        f"{folder}: no space left on the device; 4 of 12 questions are scored and kept, and the "
        "same command goes on once there is room."
    )
    assert "goes on after 4 of 12 questions" in scored(settings(data, folder))
    assert (folder / "scores.parquet").read_bytes() == (whole[0] / "scores.parquet").read_bytes()


def test_a_folder_of_other_scores_is_refused_with_what_differs(whole, data, monkeypatch):
    folder, _ = whole
    before = (folder / "scores.parquet").read_bytes()
    for given, said in (
        (settings(data, folder, seed=1), "a scoring with seed 0, but now it is 1"),
        (settings(data, folder, prompt="plain"), "prompt 'as trained', but now it is 'plain'"),
        (settings(data, folder, samples=5), "samples 3, but now it is 5"),
        (settings(data, folder, model="other"), "model 'quickstart', but now it is 'other'"),
    ):
        with pytest.raises(UserError, match=said):
            scored(given)
    with monkeypatch.context() as patched:
        patched.setattr("alphamed_jax.curation.scoring.weights_digest", lambda _: "f" * 64)
        with pytest.raises(UserError, match="a scoring that differs in weights of the model;"):
            scored(settings(data, folder))
    loaded = load_all([str(data)], 0, 0)
    fewer = dataclasses.replace(loaded, train=loaded.train[1:])
    monkeypatch.setattr("alphamed_jax.curation.scoring.load_onto", lambda *_: fewer)
    with pytest.raises(
        UserError, match=r"differs in number of questions \(12, now 11\), questions"
    ):
        scored(settings(data, folder))
    assert (folder / "scores.parquet").read_bytes() == before


def test_settings_that_cannot_be_meant_are_refused(data, tmp_path):
    for changes, said in (
        ({"model": None}, "nothing to score with: --model"),
        ({"data": ()}, "no questions to score: give --data"),
        ({"temperature": 0.0}, "temperature is 0.0: expected a number above 0"),
        ({"samples": 0}, "samples is 0: expected at least 1"),
        ({"limit": 0}, "limit is 0: expected at least 1"),
    ):
        with pytest.raises(UserError, match=said):
            settings(data, tmp_path, **changes)


def test_a_limit_draws_the_same_questions_of_each_source_whatever_their_order(data):

    questions = load_all([str(data)], 0, 0).train
    some = list(limited(questions, 5, seed=3))
    assert len(some) == 5
    assert set(some) == set(limited(questions[::-1], 5, seed=3)) != set(limited(questions, 5, 4))
    assert [one for one in questions if one in some] == some
    assert set(some) == set(choose(questions, 5, seed=3))
    assert list(limited(questions, None, 0)) == list(questions)
