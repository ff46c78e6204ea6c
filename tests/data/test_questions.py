"""A question is complete or refused; files of our own schema are read, or refused by line."""

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from alphamed_jax.data.questions import (
    LETTERS,
    Question,
    content_id,
    own_question,
    read_rows,
    shuffle_options,
)
from alphamed_jax.errors import UserError

DRUGS = ("Metformin", "Warfarin", "Lisinopril")


def question(options: tuple[str, ...] = DRUGS, answer: str = "B", name: str = "q1") -> Question:
    return Question(name, "Which drug needs INR checks?", options, answer, "test")


def row(**changes) -> dict:
    return {
        "question": "Which drug needs INR checks?",
        "options": list(DRUGS),
        "answer": "B",
        **changes,
    }


def test_a_question_knows_the_position_of_its_answer():
    assert question().answer_index == 1


def test_a_question_cannot_be_changed_and_can_be_a_key():
    asked = question()

    with pytest.raises(FrozenInstanceError):
        asked.answer = "A"
    assert {asked: 1}[question()] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "id is empty"),
        ({"options": ("one",), "answer": "A"}, "1 options, expected 2 to 10"),
        ({"options": tuple("abcdefghijk"), "answer": "A"}, "11 options, expected 2 to 10"),
        ({"options": ("Metformin", "  ")}, "option B is empty"),
        ({"answer": "D"}, "answer 'D' is outside the options, expected a letter A to C"),
        ({"answer": "b"}, "answer 'b' is outside the options"),
        ({"answer": "AB"}, "answer 'AB' is outside the options"),
        ({"answer": ""}, "answer '' is outside the options"),
        ({"options": ("ok", "half \ud83d")}, "option B holds half of a character"),
    ],
)
def test_an_incomplete_question_is_refused(changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        question(**changes)


@given(
    options=st.lists(st.text("xyz", min_size=1), min_size=2, max_size=10, unique=True),
    answer=st.integers(0, 9),
    seed=st.integers(-(2**70), 2**70),
)
def test_shuffling_moves_the_answer_letter_with_its_option(options, answer, seed):
    answer %= len(options)
    before = question(tuple(options), LETTERS[answer])

    after = shuffle_options(before, seed)

    assert sorted(after.options) == sorted(before.options)
    assert after.options[after.answer_index] == before.options[before.answer_index]
    assert (after.id, after.stem, after.source) == (before.id, before.stem, before.source)


def test_shuffling_depends_on_seed_and_question_and_reaches_every_order():
    orders = {shuffle_options(question(), seed).options for seed in range(100)}
    by_name = {shuffle_options(question(name=f"q{i}"), 0).options for i in range(100)}

    assert len(orders) == 6
    assert len(by_name) == 6
    assert shuffle_options(question(), 7) == shuffle_options(question(), 7)


@pytest.mark.parametrize("answer", ["B", "b", " B ", 1, "Warfarin", " Warfarin "])
@pytest.mark.parametrize(
    "options",
    [
        list(DRUGS),
        dict(zip("ABC", DRUGS, strict=True)),
        dict(zip("cab", DRUGS[2:] + DRUGS[:2], strict=True)),
    ],
)
def test_the_answer_may_be_letter_index_or_text_and_options_a_list_or_a_map(options, answer):
    read = own_question(row(options=options, answer=answer), "mine")

    assert (read.options, read.answer, read.source) == (DRUGS, "B", "mine")


def test_a_row_without_id_is_named_by_its_content():
    named = own_question(row(id=17), "mine")
    unnamed = own_question(row(), "mine")

    assert named.id == "17"
    assert unnamed.id == content_id(unnamed.stem, unnamed.options, "B")
    assert unnamed.id != own_question(row(answer="A"), "mine").id


@pytest.mark.parametrize(
    ("given", "source"),
    [("medqa", "medqa"), (" my\nset ", "my set"), ("", "mine"), (" ", "mine"), (None, "mine")],
)
def test_a_row_may_say_where_it_is_from(given, source):
    read = own_question(row(source=given), "mine")

    assert (read.source, read.meta) == (source, {})


def test_other_keys_are_kept_as_meta():
    assert own_question(row(hops=2, subject="cardiology"), "mine").meta == {
        "hops": 2,
        "subject": "cardiology",
    }


def test_options_are_stripped_but_not_otherwise_changed():
    read = own_question(row(question="  What is {x}?\n", options=[" \\boxed{} ", "b\nc"]), "mine")

    assert read.stem == "What is {x}?"
    assert read.options == ("\\boxed{}", "b\nc")


def test_an_answer_that_is_one_options_letter_and_anothers_text_is_not_guessed():
    blood_groups = ["B", "A", "AB", "0"]

    with pytest.raises(UserError, match="letter of one option and the text of another"):
        own_question(row(options=blood_groups, answer="A"), "mine")
    assert own_question(row(options=blood_groups, answer=1), "mine").answer == "B"
    assert own_question(row(options=["A", "B", "AB", "0"], answer="A"), "mine").answer == "A"


def test_letters_given_by_the_row_itself_are_not_ambiguous():
    blood_groups = {"A": "B", "B": "A"}

    assert own_question(row(options=blood_groups, answer="A"), "mine").options[0] == "B"
    assert own_question(row(options=blood_groups, answer="A"), "mine").answer == "A"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "D"}, "answer 'D' is outside the options, expected a letter A to C"),
        ({"answer": 3}, "answer 3 is outside the options, expected an index 0 to 2"),
        ({"answer": -1}, "answer -1 is outside the options"),
        ({"answer": True}, "'answer' is True \\(bool\\)"),
        ({"answer": 1.0}, "'answer' is 1.0 \\(float\\)"),
        ({"answer": None}, "'answer' is None"),
        ({"answer": ["A", "B"]}, "'answer' is \\['A', 'B'\\] \\(list\\)"),
        ({"answer": "Aspirin"}, "answer 'Aspirin' is outside the options"),
        ({"options": ["x", "x", "y"], "answer": "x"}, "the text of options A and B"),
        ({"options": []}, "outside the options|0 options"),
        ({"options": ["x"], "answer": 0}, "1 options, expected 2 to 10"),
        ({"options": list("abcdefghijk"), "answer": 0}, "11 options, expected 2 to 10"),
        ({"options": "A. x B. y"}, "'options' is 'A. x B. y' \\(str\\), expected a list"),
        ({"options": ["x", 4]}, "option B is 4 \\(int\\), expected text"),
        ({"options": ["x", None]}, "option B is None"),
        ({"options": {"A": "x", "C": "y"}}, "letters 'A', 'C', expected A, B, C"),
        ({"options": {"1": "x", "2": "y"}}, "letters '1', '2', expected A, B, C"),
        ({"question": "  "}, "question is empty"),
        ({"question": None}, "'question' is None \\(NoneType\\), expected text"),
        ({"id": 1.5}, "'id' is 1.5 \\(float\\)"),
        ({"id": ""}, "id is empty"),
    ],
)
def test_a_malformed_row_is_refused_with_the_key_and_what_was_expected(changes, message):
    with pytest.raises(UserError, match=message):
        own_question(row(**changes), "mine")


def test_a_missing_key_is_named_with_the_nearest_one_there_is():
    misspelt = row()
    misspelt["option"] = misspelt.pop("options")

    with pytest.raises(UserError, match=r"key 'options' is missing .*Did you mean 'option'\?"):
        own_question(misspelt, "mine")


def test_a_row_in_a_hub_schema_says_how_to_pass_it():
    with pytest.raises(UserError, match="NAME=FILE"):
        own_question({"question": "Q", "opa": "x", "cop": 0}, "mine")


def test_jsonl_rows_carry_their_line_and_blank_lines_are_skipped(tmp_path: Path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": "\xc3\xa9"}')

    assert list(read_rows(file)) == [(1, {"a": 1}), (4, {"a": "é"})]


def test_only_a_line_feed_ends_a_line(tmp_path: Path):
    # Abstracts hold U+2028 and U+0085, at which str.splitlines() would cut a row in two.
    rows = [{"a": "x\u2028y"}, {"a": "x\x85y\x0cz"}]
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")

    assert list(read_rows(file)) == [(1, rows[0]), (2, rows[1])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "cut', r"q\.jsonl, line 2: not JSON \(.*column \d+\); expected one JSON"),
        (b'[{"a": 1}]', "line 2: a JSON array; expected one JSON object a line"),
        (b'"text"', "line 2: a JSON string"),
        (b"null", "line 2: a JSON null"),
        (b"17", "line 2: a JSON number"),
        (b'{"a": "\xff"}', "line 2: not UTF-8"),
        (b"[" * 200_000, "line 2: not JSON that can be read"),
        (b"9" * 10_000, "line 2: not JSON that can be read"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: bytes, message: str):
    file = tmp_path / "q.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line + b"\n")

    with pytest.raises(UserError, match=message):
        list(read_rows(file))


def test_another_kind_of_file_and_a_missing_file_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"q\.txt: expected a file ending in \.jsonl or \.parquet"):
        list(read_rows(tmp_path / "q.txt"))
    with pytest.raises(UserError, match=r"q\.jsonl: no such file"):
        list(read_rows(tmp_path / "q.jsonl"))
    (tmp_path / "q.parquet").write_text(json.dumps(row()))
    with pytest.raises(UserError, match=r"q\.parquet: not a parquet file"):
        list(read_rows(tmp_path / "q.parquet"))


def test_parquet_gives_the_same_questions_as_jsonl(tmp_path: Path):
    rows = [row(id="a", answer="Warfarin"), row(id="b", answer="C")]
    file = tmp_path / "q.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), file)

    read = list(read_rows(file))

    assert read == [(1, rows[0]), (2, rows[1])]


@pytest.mark.parametrize("kind", ["struct", "map"])
def test_a_parquet_column_of_maps_may_hold_questions_with_fewer_letters(tmp_path: Path, kind: str):
    maps = [{"A": "x", "B": "y", "C": "z"}, {"A": "x", "B": "y"}]
    letters = pa.map_(pa.string(), pa.string()) if kind == "map" else None
    column = pa.array([list(m.items()) for m in maps] if letters else maps, type=letters)
    file = tmp_path / "q.parquet"
    parquet.write_table(
        pa.table({"question": ["Q?", "Q?"], "options": column, "answer": ["C", "B"]}), file
    )

    questions = [own_question(read, "mine") for _, read in read_rows(file)]

    assert [q.options for q in questions] == [("x", "y", "z"), ("x", "y")]
