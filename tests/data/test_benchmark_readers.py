"""Readers of the published tests: what of a row is asked, and what is refused."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.data.answer_key import AmbiguousLabel
from alphamed_jax.data.gpqa import gpqa_medical
from alphamed_jax.data.medxpertqa import medxpertqa
from alphamed_jax.data.mmlu_pro import mmlu_pro_medical
from alphamed_jax.data.pubmedqa import pubmedqa
from alphamed_jax.data.rows import read_rows
from alphamed_jax.data.schemas import OtherRow, UnusableRow, medmcqa, medqa
from alphamed_jax.data.sources import load
from alphamed_jax.errors import UserError

# Invented rows, in the schema of each data set.
MMLU_PRO = {
    "question_id": 5776,
    "question": "Which organ makes insulin? ",
    "options": [" Pancreas", "Liver", "Spleen", "Kidney", "Lung"],
    "answer": "A",
    "answer_index": 0,
    "cot_content": "",
    "category": "health",
    "src": "ori_mmlu-anatomy",
}
MEDXPERTQA = {
    "id": "Text-9",
    "question": "A sailor has bleeding gums. What is missing?\n"
    "Answer Choices: (A) Thiamine (B) Ascorbic acid (C) Niacin",
    "options": {"A": "Thiamine", "B": "Ascorbic acid", "C": "Niacin"},
    "label": "B",
    "medical_task": "Diagnosis",
    "body_system": "Digestive",
    "question_type": "Reasoning",
}
GPQA = {
    "Record ID": "rec1",
    "Question": "Which invented enzyme joins two strands?\n",
    "Correct Answer": "Ligase\n",
    "Incorrect Answer 1": "Helicase",
    "Incorrect Answer 2": "Primase",
    "Incorrect Answer 3": "Gyrase",
    "Subdomain": "Molecular Biology",
    "High-level domain": "Biology",
}
MEDQA = {
    "question": "A sailor has bleeding gums. What is missing?",
    "answer": 'Ascorbic acid\n"',
    "options": {"A": "Thiamine", "B": 'Ascorbic acid\n"', "C": 'The "B" \n', "D": 'Said "yes"'},
    "meta_info": "step2&3",
    "answer_idx": "B",
}
MEDMCQA = {
    "id": "m-1",
    "question": "Which vitamin is given for scurvy?",
    **{"opa": "Vitamin C", "opb": "Vitamin B12", "opc": "vitamin C.", "opd": "Vitamin D"},
    "cop": 2,
}


def write(folder: Path, *rows: dict) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


# -- MMLU-Pro ------------------------------------------------------------------------------------


def test_mmlu_pro_has_three_to_ten_options_without_blanks_around_them():
    question = mmlu_pro_medical(MMLU_PRO, "mmlu")

    assert (question.id, question.stem) == ("5776", "Which organ makes insulin?")
    assert question.options == ("Pancreas", "Liver", "Spleen", "Kidney", "Lung")
    assert (question.answer, question.source) == ("A", "mmlu")
    assert question.meta == {"category": "health", "src": "ori_mmlu-anatomy"}


@pytest.mark.parametrize("count", range(3, 11))
def test_mmlu_pro_reads_any_number_of_options_up_to_ten(count: int):
    row = MMLU_PRO | {"options": [f"option {i}" for i in range(count)]}

    assert len(mmlu_pro_medical(row, "mmlu").options) == count


def test_mmlu_pro_loses_what_earlier_releases_fill_options_up_with():
    row = MMLU_PRO | {"options": ["Pancreas", "N/A", "Liver", "N/A", "N/A"]}

    assert mmlu_pro_medical(row, "mmlu").options == ("Pancreas", "N/A", "Liver")


@pytest.mark.parametrize("category", ["law", "chemistry", "psychology"])
def test_mmlu_pro_tells_rows_of_other_categories(category: str):
    with pytest.raises(OtherRow, match="other categories than health and biology"):
        mmlu_pro_medical(MMLU_PRO | {"category": category}, "mmlu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "B"}, "'answer' is 'B' and 'answer_index' is 0"),
        ({"answer_index": 1}, "'answer' is 'A' and 'answer_index' is 1"),
        ({"answer": "F", "answer_index": 5}, "answer 'F' is outside the options"),
        ({"answer": "", "answer_index": -1}, "'answer' is ''"),
        ({"answer_index": "0"}, "'answer_index' is '0'"),
        ({"options": "Pancreas"}, "'options' is 'Pancreas'"),
        ({"options": ["x"] * 11}, "11 options, expected 2 to 10"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_mmlu_pro_refuses_labels_that_disagree_or_are_outside(changes, message, strict):
    with pytest.raises(UserError, match=message):
        mmlu_pro_medical(MMLU_PRO | changes, "mmlu", strict)


# -- MedXpertQA ----------------------------------------------------------------------------------


def test_medxpertqa_takes_the_options_off_the_text_of_the_question():
    question = medxpertqa(MEDXPERTQA, "medx")

    assert question.stem == "A sailor has bleeding gums. What is missing?"
    assert question.options == ("Thiamine", "Ascorbic acid", "Niacin")
    assert (question.id, question.answer) == ("Text-9", "B")
    assert question.meta == {
        "medical_task": "Diagnosis",
        "body_system": "Digestive",
        "question_type": "Reasoning",
    }


@pytest.mark.parametrize(
    "options",
    [
        [{"letter": letter, "content": text} for letter, text in MEDXPERTQA["options"].items()],
        {"letter": ["A", "B", "C"], "content": ["Thiamine", "Ascorbic acid", "Niacin"]},
    ],
)
def test_medxpertqa_reads_options_as_a_list_too(options: Any):
    assert medxpertqa(MEDXPERTQA | {"options": options}, "medx") == medxpertqa(MEDXPERTQA, "medx")


def test_medxpertqa_keeps_a_text_without_options_as_it_is():
    row = MEDXPERTQA | {"question": "Answer Choices: which law gives them?"}

    assert medxpertqa(row, "medx").stem == "Answer Choices: which law gives them?"


def test_medxpertqa_with_other_options_in_the_text_is_doubtful_but_was_published_so():
    row = MEDXPERTQA | {"question": "What?\nAnswer Choices: (A) Iron (B) Zinc (C) Lead"}

    with pytest.raises(AmbiguousLabel, match="'question' ends with other options"):
        medxpertqa(row, "medx")
    assert medxpertqa(row, "medx", strict=False).stem == "What?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "D"}, "answer 'D' is outside the options, expected a letter A to C"),
        ({"label": 1}, "'label' is 1"),
        ({"options": ["a", "b"]}, "expected a letter -> text map, or a list of"),
        ({"options": [{"letter": "A", "content": "x"}] * 2}, "a letter stands twice"),
        ({"options": [{"letter": "A"}]}, "key 'content' is missing"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_medxpertqa_refuses_what_it_cannot_read(changes, message, strict):
    with pytest.raises(UserError, match=message):
        medxpertqa(MEDXPERTQA | changes, "medx", strict)


@pytest.mark.shared
def test_real_rows_of_medxpertqa_end_with_their_question(shared: Path):
    rows = [row for _, row in read_rows(shared / "data" / "medxpertqa_sample.jsonl")]

    questions = [medxpertqa(row, "medx") for row in rows]

    assert len(questions) == 16
    assert all("Answer Choices:" in row["question"] for row in rows)
    assert not [one for one in questions if "Answer Choices" in one.stem or "(A)" in one.stem]
    assert {len(one.options) for one in questions} == {10}


@pytest.mark.shared
def test_real_rows_of_mmlu_pro_are_all_read(shared: Path):
    rows = [row for _, row in read_rows(shared / "data" / "mmlu_pro_sample.jsonl")]

    questions = [mmlu_pro_medical(row, "mmlu", strict=False) for row in rows]

    assert [one.answer_index for one in questions] == [row["answer_index"] for row in rows]
    assert {len(one.options) for one in questions} == {4, 8, 9, 10}


# -- GPQA ----------------------------------------------------------------------------------------


def test_gpqa_has_an_order_of_options_of_its_own_and_the_right_letter():
    question = gpqa_medical(GPQA, "gpqa")

    assert (question.id, question.stem) == ("rec1", "Which invented enzyme joins two strands?")
    assert question.options == ("Primase", "Gyrase", "Helicase", "Ligase")
    assert question.answer == "D"
    assert question.meta == {"Subdomain": "Molecular Biology", "High-level domain": "Biology"}


@given(
    wrong=st.permutations(["Helicase", "Primase", "Gyrase"]),
    name=st.one_of(st.none(), st.text("xyz", min_size=1)),
    seed=st.integers(0, 9),
)
def test_the_order_of_gpqa_depends_on_the_texts_alone(wrong, name, seed):
    # Given the row with its wrong options in another order and another id, and global generators
    # in any state,
    random.seed(seed)
    row = GPQA | {f"Incorrect Answer {i + 1}": text for i, text in enumerate(wrong)}

    question = gpqa_medical(row | {"Record ID": name}, "gpqa")

    # then options and answer are the same.
    assert question.options == ("Primase", "Gyrase", "Helicase", "Ligase")
    assert question.answer == "D"


def test_the_right_options_of_gpqa_have_all_letters():
    rows = [GPQA | {"Question": f"Which invented enzyme is number {i}?"} for i in range(40)]

    letters = [gpqa_medical(row, "gpqa").answer for row in rows]

    assert {letter: letters.count(letter) for letter in "ABCD"} == {
        "A": 11,
        "B": 10,
        "C": 8,
        "D": 11,
    }


@pytest.mark.parametrize("subdomain", ["Organic Chemistry", "Biology (general)"])
def test_gpqa_tells_rows_of_other_subdomains(subdomain: str):
    with pytest.raises(OtherRow, match="other subdomains than genetics and molecular biology"):
        gpqa_medical(GPQA | {"Subdomain": subdomain}, "gpqa")


def test_gpqa_without_its_columns_is_another_schema():
    with pytest.raises(UserError, match="key 'Subdomain' is missing"):
        gpqa_medical({"question": "Which?", "options": ["a", "b"], "answer": "A"}, "gpqa")


# -- MedQA, MedMCQA ------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_medqa_takes_off_what_stands_behind_an_option(strict: bool):
    question = medqa(MEDQA, "medqa", strict)

    assert question.options == ("Thiamine", "Ascorbic acid", 'The "B"', 'Said "yes"')
    assert question.meta == {"meta_info": "step2&3"}


@pytest.mark.parametrize(
    ("read", "row", "answer"),
    [
        (medmcqa, MEDMCQA, "C"),
        (medqa, MEDQA | {"answer": "Niacin"}, "B"),
        (medqa, MEDQA | {"label": "A"}, "B"),
        (gpqa_medical, GPQA | {"Incorrect Answer 3": "Ligase."}, None),
    ],
)
def test_a_row_with_a_doubtful_label_is_not_learned_from_but_can_be_had_as_published(
    read, row, answer
):
    with pytest.raises((AmbiguousLabel, UnusableRow)):
        read(row, "source")

    question = read(row, "source", strict=False)
    assert answer in (question.answer, None)


@pytest.mark.parametrize("cop", [-1, 4, None, "1"])
def test_medmcqa_as_published_still_has_a_label_within_its_options(cop: Any):
    with pytest.raises(UserError, match="'cop' is"):
        medmcqa(MEDMCQA | {"cop": cop}, "medmcqa", strict=False)


def test_pubmedqa_as_published_needs_its_decision():
    row = {"pubid": 1, "question": "Is it?", "context": {"contexts": ["It is."]}}

    with pytest.raises(UserError, match="'final_decision' is 'perhaps'"):
        pubmedqa(row | {"final_decision": "perhaps"}, "pubmedqa", strict=False)


# -- as sources ----------------------------------------------------------------------------------


def test_tests_are_read_as_the_test_split_of_their_source(tmp_path: Path):
    file = write(tmp_path, MMLU_PRO, MMLU_PRO | {"category": "law"})

    loaded = load(f"mmlu-pro-medical={file}", "test")

    assert loaded.train == ()
    assert [question.id for question in loaded.heldout or ()] == ["5776"]
    assert loaded.dropped == {"rows of other categories than health and biology": 1}
