"""A label that can be read in two ways is refused, or counted in public data; never resolved."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from alphamed_jax.data.answer_key import AmbiguousLabel, same_text
from alphamed_jax.data.questions import own_question
from alphamed_jax.data.rows import read_rows
from alphamed_jax.data.sources import load, load_all
from alphamed_jax.errors import UserError

DRUGS = ["Metformin", "Warfarin", "Lisinopril", "Digoxin"]


def row(**changes: Any) -> dict:
    return {"question": "Which drug needs INR checks?", "options": DRUGS, "answer": "B", **changes}


def medmcqa(number: int, cop: int = 1, **changes: Any) -> dict:
    texts = dict(zip(("opa", "opb", "opc", "opd"), DRUGS, strict=True))
    return {
        "id": f"m-{number}",
        "question": f"Which drug ({number})?",
        "cop": cop,
        **texts,
    } | changes


def write(folder: Path, *lines: Any, name: str = "rows.jsonl") -> Path:
    file = folder / name
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return file


AMBIGUOUS = {
    "gold text twice": (row(options=["x y", "Warfarin", "x  y"], answer="A"), "says the same as C"),
    "gold twice in another case": (row(options=["Warfarin", "warfarin"]), "says the same as A"),
    "gold twice in another form": (row(options=["5 µg", "5 \u03bcg."]), "says the same as A"),
    "gold twice under letters": (row(options={"A": "x", "B": "x"}), "says the same as A"),
    "answer text equal to two": (row(options=["x", "x.", "y"], answer="x."), "the same|text of"),
    "one letter in two cases": (row(options={"A": "x", "a": "y"}), "the letter A twice"),
    "one letter with a space": (row(options={"A": "x", "B": "y", "B ": "z"}), "the letter B twice"),
    "index or number": (row(options=["3", "2", "1"], answer=1), "index of one option .* text of"),
    "index or number, decimals": (row(options=["2.0", "3.0", "1.0"], answer=1), "index of one"),
    "index or number under letters": (
        row(options={"A": "1", "B": "2"}, answer=1),
        "text of another",
    ),
    "letters of others": (row(options=["B. Heparin", "A. Warfarin"]), "label of"),
    "letters of others in brackets": (
        row(options=["(b) Heparin", "(a) Warfarin"]),
        "label of another",
    ),
    "one letter of another": (row(options=["B. x", "y", "z"]), "option A begins with the label"),
    "letters of others under letters": (
        row(options={"A": "B) x", "B": "A) y"}),
        "label of another",
    ),
    "text and letter": (row(answer="Warfarin", answer_idx="A"), "'answer_idx' is 'A'"),
    "letter and index from one": (row(answer_index=2), "'answer_index' is 2"),
    "letter and index as text": (row(answer_idx="2"), "'answer_idx' is '2'"),
    "letter and text": (row(correct_answer="Metformin"), "'correct_answer' is 'Metformin'"),
    "index beyond": (row(answer_index=4), "'answer_index' is 4"),
    "letter and gold": (row(Gold="c"), "'Gold' is 'c'"),
    "options twice": (row(Options=["x", "y"]), "the keys 'options' and 'Options'"),
    "letter and correct": (row(correct="Digoxin"), "'correct' is 'Digoxin'"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_ambiguous_row_of_our_own_schema_is_refused_with_its_line(tmp_path: Path, case: str):
    bad, message = AMBIGUOUS[case]

    with pytest.raises(UserError, match=rf"rows\.jsonl, line 2: .*({message})"):
        load(str(write(tmp_path, row(question="Fine?"), bad)))


@pytest.mark.parametrize(
    "changes",
    [
        {"options": ["AA", "Aa", "aa"]},
        {"options": ["Warfarin", "x", "x"], "answer": "A"},
        {"options": ["C. difficile", "E. coli", "S. aureus", "B. cereus"], "answer": "C"},
        {"options": ["A. baumannii", "B. cereus"]},
        {"options": ["A. Heparin", "B. Warfarin"]},
        {"options": ["A. ii) B. i)", "A. i) B. ii)"]},
        {"options": ["0", "1", "2"], "answer": 1},
        {"options": ["10", "20", "30"], "answer": 1},
        {"options": ["A.V. aneurysm", "I. Only", "x"]},
        {"options": {"A": "B", "B": "A"}},
        {"answer": "Warfarin", "answer_idx": "B", "answer_index": 1, "answer_text": "warfarin"},
        {"correct": True, "label": "hard", "target": None, "gold": ["B"]},
        {"options": [">50", "<50"]},
        {"options": ["True+ve", "True-ve"]},
    ],
)
def test_what_can_be_read_in_one_way_only_is_read(changes: dict):
    own_question(row(**changes), "mine")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Warfarin", " WARFARIN. ", True),
        ("5  mg", "5\u00a0mg", True),
        ("\ufb01brin", "fibrin", True),
        ("Stage IA", "Stage Ia", False),
        ("Rh+", "Rh-", False),
        ("5 mg", "50 mg", False),
    ],
)
def test_texts_that_say_the_same(one: str, other: str, same: bool):
    assert (same_text(one) == same_text(other)) is same


@pytest.mark.parametrize("answer", [True, 1.0, [1], {"A": 1}, None])
def test_an_answer_of_another_kind_is_refused(answer: Any):
    with pytest.raises(UserError, match=r"'answer' is .*expected a letter, an index or a text"):
        own_question(row(answer=answer), "mine")


@pytest.mark.parametrize("key", ["A)", "(A)", "A.", "\uff21", "1"])
def test_a_key_that_is_no_letter_is_refused(key: str):
    with pytest.raises(UserError, match=r"'options' has the letters .*expected A, B, C"):
        own_question(row(options={key: "x", "B": "y"}), "mine")


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "Q?", "options": ["x", "y"], "answer": "A", "answer": "B"}',
        '{"question": "Q?", "options": {"A": "x", "B": "y", "A": "z"}, "answer": "A"}',
        '{"question": "Q?", "options": ["x", "y"], "answer": "A", "m": [{"n": {"k": 1, "k": 1}}]}',
    ],
)
@pytest.mark.parametrize("name", ["", "medmcqa="])
def test_a_doubled_json_key_is_refused_at_any_depth(tmp_path: Path, line: str, name: str):
    with pytest.raises(UserError, match=r"line 1: the key '(answer|A|k)' stands twice"):
        load(f"{name}{write(tmp_path, line)}")


def test_a_doubled_parquet_column_is_refused_at_any_depth(tmp_path: Path):
    plain, nested = tmp_path / "plain.parquet", tmp_path / "nested.parquet"
    parquet.write_table(pa.table([["A"], ["B"]], names=["answer", "answer"]), plain)
    struct = pa.StructArray.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["A", "A"])
    listed = pa.ListArray.from_arrays(pa.array([0, 1]), struct)
    parquet.write_table(pa.table([listed], names=["options"]), nested)

    for file, column in ((plain, "answer"), (nested, "A")):
        with pytest.raises(UserError, match=rf"{file.name}: the column '{column}' stands twice"):
            list(read_rows(file))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (medmcqa(1, opc="warfarin "), "right option given twice"),
        (
            medmcqa(1, opa="B. x", opb="A. y", opc="C. z", opd="D. v"),
            "options that carry other letters",
        ),
        (medmcqa(1, answer="Digoxin"), "answers that disagree"),
    ],
)
def test_an_ambiguous_row_of_public_data_is_dropped_and_counted(tmp_path, bad: dict, reason: str):
    loaded = load(f"medmcqa={write(tmp_path, medmcqa(0), bad)}")

    assert (len(loaded.train), loaded.rows, loaded.dropped) == (1, 2, {reason: 1})


def test_medqa_rows_with_a_letter_twice_are_dropped_and_counted(tmp_path: Path):
    fine = {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer_idx": "A", "answer": "X"}
    bad = {**fine, "question": "R?", "options": {"A": "x", "B": "y", "a": "z"}}

    loaded = load(f"medqa={write(tmp_path, fine | {'answer': 'x.'}, bad)}")

    assert loaded.dropped == {"a letter given to two options": 1}


@pytest.mark.parametrize("twin", [{}, {"options": DRUGS[::-1], "answer": "A"}])
def test_one_question_with_two_answers_is_refused_with_both_lines(tmp_path: Path, twin: dict):
    # Given a question twice, also with its options in another order, under two keys,
    other = row(question="which drug needs  INR checks", answer="D") | twin

    # when the file is loaded, then both lines are named.
    with pytest.raises(UserError, match=r"line 2: the same question and options .*line 1"):
        load(str(write(tmp_path, row(), other)))


def test_one_question_with_two_answers_in_public_data_is_dropped_whole(tmp_path: Path):
    twins = [medmcqa(0, question="Q?"), medmcqa(1, cop=2, question="q")]

    loaded = load(f"medmcqa={write(tmp_path, *twins, medmcqa(2))}")

    assert [question.id for question in loaded.train] == ["m-2"]
    assert loaded.dropped == {"same question and options with another answer": 2}


def test_two_files_that_answer_one_question_in_two_ways_are_refused(tmp_path: Path):
    one, two = (
        write(tmp_path, row(), name="a.jsonl"),
        write(tmp_path, row(answer="C"), name="b.jsonl"),
    )

    with pytest.raises(UserError, match=r"b\.jsonl, line 1: the same question .*a\.jsonl, line 1"):
        load_all([str(one), str(two)], heldout=0, seed=0)


@pytest.mark.parametrize("count", [3, 30])
def test_a_file_that_counts_from_one_is_refused_though_no_index_is_beyond(tmp_path, count: int):
    # Given indices 1 to 3 of four options, which are all in range,
    public = write(tmp_path, *(medmcqa(i, cop=1 + i % 3) for i in range(count)))
    mine = [row(question=f"Q{i}?", answer=1 + i % 3) for i in range(count)]

    # when the file is loaded, then the missing 0 tells.
    with pytest.raises(UserError, match=r"rows\.jsonl: 'cop' holds 1, 2, 3 and never 0 in"):
        load(f"medmcqa={public}")
    with pytest.raises(UserError, match=r"own\.jsonl: 'answer' holds 1, 2, 3 and never 0 in"):
        load(str(write(tmp_path, *mine, name="own.jsonl")))


@pytest.mark.parametrize("answers", [[0, 1, 2, 3] * 8, [0] + [1, 2] * 20, [2], [1, 2], [1]])
def test_a_file_that_counts_from_zero_is_read(tmp_path: Path, answers: list[int]):
    file = write(tmp_path, *(row(question=f"Q{i}?", answer=a) for i, a in enumerate(answers)))

    assert [q.answer_index for q in load(str(file)).train] == answers


def test_the_reason_is_one_for_all_rows_of_a_kind():
    with pytest.raises(AmbiguousLabel) as caught:
        own_question(row(options=["x", "x"]), "mine")

    assert caught.value.reason == "right option given twice"
