"""AlphaMed19K's questions hold their options, which are taken off and shown once."""

import json
from pathlib import Path

import pytest

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import prompt_text
from alphamed_jax.data.sources import load
from alphamed_jax.errors import UserError

# Invented, in the schema of the data set.
ROW = {
    "question": (
        "A 40-year-old sailor has bleeding gums. Which of these is missing?\n"
        "A: Thiamine\nB: Ascorbic acid\nC: Niacin\nD: Retinol"
    ),
    "answer": "B",
}


def write(folder: Path, *rows: dict) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"alphamed19k={file}"


def test_the_text_does_not_keep_the_options(tmp_path: Path):
    [question] = load(write(tmp_path, ROW)).train

    assert question.stem == "A 40-year-old sailor has bleeding gums. Which of these is missing?"
    assert question.options == ("Thiamine", "Ascorbic acid", "Niacin", "Retinol")
    assert (question.answer, question.source, len(question.id)) == ("B", "alphamed19k", 16)
    assert prompt_text(question, PromptConfig()).count("Ascorbic acid") == 1


def test_five_options_and_line_breaks_within_the_question_are_kept(tmp_path: Path):
    text = "First.\n\nSecond: which?\nA: a1\nB: b1\nC: c1\nD: d1\nE: e1\n"

    [question] = load(write(tmp_path, {"question": text, "answer": "E"})).train

    assert (question.stem, question.options[4]) == ("First.\n\nSecond: which?", "e1")


def test_rows_that_are_not_clear_are_counted(tmp_path: Path):
    loaded = load(
        write(
            tmp_path,
            ROW,
            {"question": "What is missing?", "answer": "A"},
            {"question": "What?\nA: one\ngoes on\nB: two", "answer": "A"},
            {"question": "What?\nA: one\nB: two\nThink first.", "answer": "A"},
            {"question": "What?\nA: one\nB:", "answer": "A"},
            {"question": "A: one\nB: two", "answer": "A"},
            {"question": "What?\nA: one\nB: one\nC: two", "answer": "A"},
        )
    )

    assert len(loaded.train) == 1
    assert loaded.dropped == {
        "options that cannot be told apart in the question's text": 3,
        "empty question or option": 2,
        "right option given twice": 1,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "E"}, r"line 1: answer 'E' is outside the options, expected a letter A to D"),
        ({"answer": 1}, r"line 1: 'answer' is 1 \(int\), expected text"),
        ({"options": ["x", "y"]}, r"line 1: 'options' is no key of AlphaMed19K"),
        ({"question": 3}, r"line 1: 'question' is 3 \(int\), expected text"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, {**ROW, **changes}))
