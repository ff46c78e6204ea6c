"""verl's rows are asked by their own messages; what is no multiple choice is refused in words."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.options import AS_IT_IS, CannotChange, fewer_options, orders
from alphamed_jax.data.prompts import prompt_text
from alphamed_jax.data.questions import Messages
from alphamed_jax.data.sources import load
from alphamed_jax.errors import UserError

ASKED = (
    "Which vitamin is given for scurvy?\n"
    "A. Vitamin A\nB. Vitamin B12\nC. Vitamin C\nD. Vitamin D\n\n"
    "Put the letter of the answer within \\boxed{}."
)
ROW = {
    "data_source": "med/scurvy",
    "prompt": [
        {"role": "system", "content": "You are a physician."},
        {"role": "user", "content": ASKED},
    ],
    "ability": "medicine",
    "reward_model": {"style": "rule", "ground_truth": "C"},
    "extra_info": {"split": "train", "index": 7},
}


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def write(folder: Path, *rows: Any) -> str:
    parquet.write_table(pa.Table.from_pylist(list(rows)), folder / "rows.parquet")
    return f"verl={folder / 'rows.parquet'}"


def lines(folder: Path, *rows: Any) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"verl={folder / 'rows.jsonl'}"


def test_the_messages_are_kept_and_the_options_read_out_of_them(tmp_path: Path):
    [question] = load(write(tmp_path, ROW)).train

    assert question.messages == Messages("You are a physician.", ASKED)
    assert prompt_text(question, PromptConfig()) == ASKED
    assert question.stem == "Which vitamin is given for scurvy?"
    assert question.options == ("Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin D")
    assert (question.answer, question.source) == ("C", "med/scurvy")
    assert question.meta == {
        "data_source": "med/scurvy",
        "split": "train",
        "index": 7,
        "prompt_messages": ROW["prompt"],
    }


def test_rows_without_a_data_source_are_of_verl(tmp_path: Path):
    rows = [{**ROW, "data_source": None}, {key: ROW[key] for key in ROW if key != "data_source"}]
    for row in rows:
        assert load(lines(tmp_path, row)).train[0].source == "verl"


@pytest.mark.parametrize("key", ["options", "choices"])
@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["one", "two", "three"], ("one", "two", "three")),
        ({"A": "one", "B": "two", "C": "three"}, ("one", "two", "three")),
        (3, ("A", "B", "C")),
    ],
)
def test_options_that_the_message_does_not_list_stand_beside_it(tmp_path, key, given, options):
    row = {**ROW, "prompt": user("One, two or three?")}

    for told in ({"extra_info": {key: given}}, {key: given}):
        [question] = load(write(tmp_path, row | told)).train
        assert (question.stem, question.options) == ("One, two or three?", options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": user("One or two?")}, r"the options are not clear: .* 'options' \(a list"),
        ({"extra_info": {"options": 3}}, r"extra_info\.options has 3 options, .* message lists 4"),
        ({"extra_info": {"options": 1}}, r"extra_info\.options has 1 options"),
        (
            {"reward_model": {"ground_truth": "72"}},
            r"ground_truth is '72' \(str\), .* A to D: only",
        ),
        ({"reward_model": {"ground_truth": "E"}}, r"ground_truth is 'E'"),
        ({"reward_model": {"ground_truth": 2}}, r"ground_truth is 2 \(int\)"),
        ({"reward_model": {"style": "rule"}}, r"key 'ground_truth' is missing \(found: 'style'\)"),
        ({"reward_model": "C"}, r"'reward_model' is 'C' \(str\), expected a map"),
        ({"prompt": ASKED}, r"'prompt' is 'Which .* expected a list of messages"),
        ({"prompt": []}, r"'prompt' has messages of none; expected the user's message"),
        (
            {"prompt": [*user("Hi"), {"role": "assistant", "content": "Hi"}]},
            r"'prompt' has messages of user, assistant; expected the user's message",
        ),
        ({"prompt": [{"role": "user", "content": None}]}, r"the content of user is None"),
        ({"prompt": user("  ")}, r"the message of the user is empty"),
        ({"data_source": 7}, r"'data_source' is 7 \(int\), expected text"),
        ({"images": ["a.png"]}, r"the row has images, and only text is asked here"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused_with_its_place(tmp_path, changes, message):
    with pytest.raises(UserError, match=rf"rows\.jsonl, line 2: .*{message}"):
        load(lines(tmp_path, ROW, ROW | changes))


def test_rows_whose_right_option_is_not_clear_are_counted(tmp_path: Path):
    twice = {**ROW, "prompt": user("Which?\nA. one\nB. one\nC. two")}
    twice["reward_model"] = {"ground_truth": "A"}
    other = {**ROW, "extra_info": {"answer": "A"}}

    assert load(lines(tmp_path, ROW, twice, other)).dropped == {
        "right option given twice": 1,
        "answers that disagree": 1,
    }


def test_the_schema_has_no_rows_of_its_own():
    with pytest.raises(
        UserError, match="data 'verl': a schema without rows of its own; give verl="
    ):
        load("verl")


def test_options_in_a_prompt_that_is_kept_do_not_change(tmp_path: Path):
    [question] = load(write(tmp_path, ROW)).train

    for change in (lambda: orders(question, 0, 1), lambda: fewer_options(question, 2, 0)):
        with pytest.raises(CannotChange, match=AS_IT_IS):
            change()


OWN = {"question": "Which?", "options": ["one", "two"], "answer": "A"}


def test_rows_of_our_own_schema_may_have_messages_too(tmp_path: Path):
    file = tmp_path / "own.jsonl"
    rows = [
        {**OWN, "prompt_messages": user("One or two?")},
        {**OWN, "question": "Why?", "prompt_messages": None},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    kept, plain = load(str(file)).train

    assert kept.messages == Messages("", "One or two?")
    assert plain.messages is None

    file.write_text(json.dumps({**OWN, "prompt_messages": "One or two?"}))
    with pytest.raises(UserError, match=r"line 1: 'prompt_messages' is .* a list of messages"):
        load(str(file))
