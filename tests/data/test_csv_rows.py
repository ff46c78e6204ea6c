"""CSV files give the rows that JSON lines give, or one line that says what is wrong with them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.data.csv_rows import csv_rows
from alphamed_jax.data.sources import load
from alphamed_jax.errors import UserError

OWN = "id,question,options,answer\n"


def write(folder: Path, text: str | bytes, name: str = "rows.csv") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return file


def rows(file: Path) -> list[dict[str, Any]]:
    return [row for _, row in csv_rows(file)]


@pytest.mark.parametrize(
    "options",
    [
        '"[""Protamine"", ""Vitamin K""]"',
        "\"['Protamine', 'Vitamin K']\"",  # as pandas writes a list
        '"{""A"": ""Protamine"", ""B"": ""Vitamin K""}"',
        "\"{'A': 'Protamine', 'B': 'Vitamin K'}\"",
    ],
)
def test_options_are_a_list_or_a_map_in_json_or_as_pandas_writes_them(tmp_path, options):
    [question] = load(str(write(tmp_path, f"{OWN}o-1,Antidote of heparin?,{options},A\n"))).train

    assert question.options == ("Protamine", "Vitamin K")
    assert (question.id, question.answer, question.source) == ("o-1", "A", "rows")


def test_options_may_stand_in_columns_named_by_their_letters(tmp_path):
    text = (
        "question,A,B,C,answer,year\n"
        '"Antidote of heparin, in ""units""?",Protamine,Vitamin K,,A,2020\n'
        "Which base stands in RNA alone?,Uracil,Guanine,Thymine,a,\n"
    )

    first, second = load(str(write(tmp_path, text))).train

    assert first.stem == 'Antidote of heparin, in "units"?'
    assert (first.options, first.meta) == (("Protamine", "Vitamin K"), {"year": "2020"})
    assert (second.options, second.answer) == (("Uracil", "Guanine", "Thymine"), "A")


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        ('["x", "y", "z"]', "2", "C"),
        ('["x", "y", "z"]', "b", "B"),
        ('["x", "y", "z"]', "y", "B"),
        ('["10", "20", "30"]', "20", "B"),
    ],
)
def test_an_answer_is_a_letter_an_index_or_the_text_of_an_option(tmp_path, options, answer, letter):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["question", "options", "answer"], ["Q?", options, answer]])

    assert load(str(tmp_path / "rows.csv")).train[0].answer == letter


def test_an_answer_that_may_be_an_index_or_a_text_is_refused(tmp_path):
    file = write(tmp_path, 'question,options,answer\nQ?,"[""0"", ""1"", ""2"", ""1.5""]",1\n')

    assert load(str(file)).train[0].answer == "B"
    file = write(tmp_path, 'question,options,answer\nQ?,"[""1"", ""2"", ""3""]",1\n')
    with pytest.raises(UserError, match=r"line 2: answer 1 is the index of one option .* letter"):
        load(str(file))


def test_a_file_whose_indices_count_from_one_is_refused(tmp_path):
    lines = [f'Q{i}?,"[""x"", ""y"", ""z"", ""w{i}""]",{i % 3 + 1}\n' for i in range(40)]
    file = write(tmp_path, "question,options,answer\n" + "".join(lines))

    with pytest.raises(UserError, match=r"rows\.csv: 'answer' holds 1, 2, 3 and never 0"):
        load(str(file))


def test_the_schema_of_a_hub_data_set_is_read_from_its_csv(tmp_path):
    medmcqa = "id,question,opa,opb,opc,opd,cop,topic_name\nm,Scurvy?,A1,B12,C,D3,2,\n"
    pubmedqa = (
        "pubid,question,context,final_decision\n"
        "12,Does it help?,\"{'contexts': ['Forty walked.', 'It fell.']}\",yes\n"
    )

    [one] = load(f"medmcqa={write(tmp_path, medmcqa)}").train
    [other] = load(f"pubmedqa={write(tmp_path, pubmedqa)}").train

    assert (one.options, one.answer, one.meta) == (("A1", "B12", "C", "D3"), "C", {})
    assert (other.id, other.stem) == ("12", "Forty walked.\nIt fell.\n\nDoes it help?")


def test_a_hidden_or_empty_label_is_refused_with_its_line(tmp_path):
    head = "id,question,opa,opb,opc,opd,cop\n"

    with pytest.raises(UserError, match=r"rows\.csv, line 2: 'cop' is -1: the answers"):
        load(f"medmcqa={write(tmp_path, head + 'm,Q?,a,b,c,d,-1')}")
    with pytest.raises(UserError, match=r"rows\.csv, line 3: 'cop' is None, expected 0 to 3"):
        load(f"medmcqa={write(tmp_path, head + 'm,Q?,a,b,c,d,0' + chr(10) + 'n,P?,a,b,c,d,')}")


def test_a_row_is_named_by_the_line_on_which_it_begins(tmp_path):
    text = '\n\nquestion,answer\n"two\nlines",A\n\n\nthird,B\n'

    assert [number for number, _ in csv_rows(write(tmp_path, text))] == [4, 8]


def test_a_mark_of_windows_and_its_line_ends_and_the_index_of_pandas_mean_nothing(tmp_path):
    file = write(tmp_path, b"\xef\xbb\xbf,question , answer\r\n0,Q?,A\r\n1,P?,B\r\n")

    assert rows(file) == [{"question": "Q?", "answer": "A"}, {"question": "P?", "answer": "B"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,answer\nQ?,A\nP?\n", r"line 3: 1 cells, but the first line names 2 columns"),
        ("question,answer\nQ, or P?,A\n", r"line 2: 3 cells, but .* between quotation marks"),
        ('question,answer\n"Q?,A\n', r"line 2: not CSV that can be read \(unexpected end"),
        ('question,answer\n"Q"?,A\n', r"line 2: not CSV that can be read"),
        ("question,answer\rQ?,A\r", r"line 1: not CSV that can be read"),
        ("question,question\nQ?,A\n", r"line 1: the column 'question' stands twice"),
        ("question;answer\nQ?;A\n", r"line 1: the columns are separated by ';', expected commas"),
        ("question\tanswer\nQ?\tA\n", r"line 1: the columns are separated by '\\t', expected"),
        ("Frage,answer\n\xe4?,A\n".encode("latin-1"), r"line 2: not UTF-8 .* CSV in UTF-8"),
        ("question,answer\nQ?,A\n".encode("utf-16"), r"line 1: not UTF-8"),
        ("question,answer\nQ?,A\n".encode("utf-16-le"), r"line 1: holds a zero byte"),
        (
            'question,options,answer\nQ?,"[a, b]",A\n',
            r"line 2: 'options' begins as a list or a map",
        ),
    ],
)
def test_what_is_no_such_table_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(UserError, match=rf"rows\.csv, {message}"):
        rows(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stem,options,answer\n", r"has no usable question"),
        ('stem,options,answer\nQ?,"[""x"", ""y""]",A\n', r"'question' is missing \(found: 'stem'"),
        ("question,answer\nQ?,A\n", r"key 'options' is missing \(found: 'question', 'answer'\)"),
        ("question,options,answer\nQ?,x; y,A\n", r"'options' is 'x; y' \(str\), expected a list"),
        ('question,options,answer\nQ?,"[""x"", ""y""]",C\n', r"line 2: answer 'C' is outside"),
    ],
)
def test_columns_that_are_missing_are_named_beside_those_found(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        load(str(write(tmp_path, content)))


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1)


@given(st.lists(CELLS.filter(lambda text: text.strip()), min_size=2, max_size=5, unique=True))
def test_whatever_a_cell_holds_comes_back_as_it_was(tmp_path_factory, cells):
    # Given a table that Python's own writer wrote,
    file = tmp_path_factory.mktemp("csv") / "rows.csv"
    names = [f"column {i}" for i in range(len(cells))]
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([names, cells])

    # when it is read, then it is what went in.
    assert rows(file) == [dict(zip(names, cells, strict=True))]


@pytest.mark.shared
def test_real_rows_are_the_same_questions_from_csv(tmp_path, shared: Path):
    lines = (shared / "data" / "medmcqa_train.jsonl").read_text("utf-8").splitlines()
    given = [json.loads(line) for line in lines]
    with (tmp_path / "m.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, list(given[0]))
        table.writeheader()
        table.writerows(given)

    from_csv = load(f"medmcqa={tmp_path / 'm.csv'}")
    from_json = load(f"medmcqa={shared / 'data' / 'medmcqa_train.jsonl'}")

    assert from_csv.train == from_json.train
    assert from_csv.dropped == from_json.dropped
