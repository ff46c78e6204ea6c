"""Every source reads its own schema, refuses what it cannot, and counts what it leaves out."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from alphamed_jax.data.order import plain_text
from alphamed_jax.data.sources import SOURCES, load, load_all
from alphamed_jax.errors import UserError

# Invented rows, in the schema of each data set.
MEDMCQA = {
    "id": "m-1",
    "question": "Which vitamin is given for scurvy? ",
    "opa": "Vitamin A",
    "opb": "Vitamin B12",
    "opc": "Vitamin C",
    "opd": "Vitamin D",
    "cop": 2,
    "choice_type": "single",
    "exp": "Ascorbic acid is needed to form collagen.",
    "subject_name": "Medicine",
    "topic_name": None,
}
PUBMEDQA = {
    "pubid": 4711,
    "question": "Does walking lower blood pressure?",
    "context": {
        "contexts": ["Forty adults walked daily.", "Pressure fell by 5 mmHg."],
        "labels": ["METHODS", "RESULTS"],
        "meshes": ["Walking"],
    },
    "long_answer": "Walking lowered blood pressure.",
    "final_decision": "yes",
}
MEDQA = {
    "question": "A sailor has bleeding gums. What is missing?",
    "answer": "Ascorbic acid",
    "options": {"A": "Thiamine", "B": "Ascorbic acid", "C": "Niacin", "D": "Retinol"},
    "meta_info": "step1",
    "answer_idx": "B",
    "metamap_phrases": ["sailor", "bleeding gums"],
}
OWN = {"id": "o-1", "question": "Antidote of heparin?", "options": ["Protamine", "Vitamin K"]}
OWN["answer"] = "Protamine"


def write(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def numbered(row: dict, count: int, **changes: Any) -> list[dict]:
    ids = ("id", "pubid")
    return [
        {**row, **{k: i for k in ids if k in row}, "question": f"{row['question']} ({i})"} | changes
        for i in range(count)
    ]


def test_medmcqa_counts_the_right_option_from_zero(tmp_path: Path):
    [question] = load(f"medmcqa={write(tmp_path, MEDMCQA)}").train

    assert question.id == "m-1"
    assert question.stem == "Which vitamin is given for scurvy?"
    assert question.options == ("Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin D")
    assert (question.answer, question.source) == ("C", "medmcqa")
    assert question.meta == {"subject_name": "Medicine", "choice_type": "single"}


def test_medmcqa_keeps_questions_marked_multi(tmp_path: Path):
    file = write(tmp_path, {**MEDMCQA, "choice_type": "multi"})

    assert load(f"medmcqa={file}").train[0].meta["choice_type"] == "multi"


@pytest.mark.parametrize("cop", [4, -2, 1.0, "2", None, True])
def test_medmcqa_refuses_a_label_outside_the_options_and_names_the_row(tmp_path: Path, cop: Any):
    file = write(tmp_path, MEDMCQA, {**MEDMCQA, "id": "m-2", "cop": cop})

    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: 'cop' is .*, expected 0 to 3 as on"):
        load(f"medmcqa={file}")


def test_medmcqa_refuses_hidden_labels(tmp_path: Path):
    with pytest.raises(UserError, match=r"line 1: 'cop' is -1: the answers .* are hidden"):
        load(f"medmcqa={write(tmp_path, {**MEDMCQA, 'cop': -1})}")


def test_medmcqa_counts_rows_with_an_empty_option(tmp_path: Path):
    file = write(tmp_path, MEDMCQA, {**MEDMCQA, "opd": ""}, {**MEDMCQA, "opa": None})

    loaded = load(f"medmcqa={file}")

    assert len(loaded.train) == 1
    assert loaded.dropped == {"empty question or option": 2}


def test_medmcqa_counts_rows_that_repeat_an_option(tmp_path: Path):
    # Given rows that repeat the right option and a wrong one, but for case and a full stop,
    right = {**MEDMCQA, "opa": "vitamin C."}
    wrong = {**MEDMCQA, "opd": "vitamin A"}

    # when they are loaded, then both are dropped, each for its reason.
    loaded = load(f"medmcqa={write(tmp_path, MEDMCQA, right, wrong)}")

    assert len(loaded.train) == 1
    assert loaded.dropped == {"right option given twice": 1, "wrong option given twice": 1}


def test_pubmedqa_puts_the_abstract_before_the_question(tmp_path: Path):
    [question] = load(f"pubmedqa={write(tmp_path, PUBMEDQA)}").train

    assert question.stem == (
        "Forty adults walked daily.\nPressure fell by 5 mmHg.\n\nDoes walking lower blood pressure?"
    )
    assert question.options == ("yes", "no", "maybe")
    assert (question.id, question.answer, question.source) == ("4711", "A", "pubmedqa")


def test_pubmedqa_without_abstract_is_a_variant_with_its_own_name(tmp_path: Path):
    [question] = load(f"pubmedqa-no-context={write(tmp_path, PUBMEDQA)}").train

    assert question.stem == "Does walking lower blood pressure?"
    assert question.source == "pubmedqa-no-context"


def test_pubmedqa_never_shows_the_conclusion(tmp_path: Path):
    [question] = load(f"pubmedqa={write(tmp_path, PUBMEDQA)}").train

    assert PUBMEDQA["long_answer"] not in question.stem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_decision": "perhaps"}, "'final_decision' is 'perhaps', expected yes, no, maybe"),
        ({"context": ["text"]}, "'context' has no list of texts under 'contexts'"),
        ({"context": {"contexts": None}}, "'context' has no list of texts under 'contexts'"),
    ],
)
def test_pubmedqa_refuses_rows_of_another_shape(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(UserError, match=f"line 1: {message}"):
        load(f"pubmedqa={write(tmp_path, {**PUBMEDQA, **changes})}")


def test_medqa_reads_the_letter_and_is_named_by_content(tmp_path: Path):
    [question] = load(f"medqa={write(tmp_path, MEDQA)}").train

    assert question.options == ("Thiamine", "Ascorbic acid", "Niacin", "Retinol")
    assert (question.answer, question.source, question.meta) == (
        "B",
        "medqa",
        {"meta_info": "step1"},
    )
    assert len(question.id) == 16


def test_medqa_counts_rows_whose_letter_and_text_disagree(tmp_path: Path):
    file = write(tmp_path, MEDQA, {**MEDQA, "answer_idx": "A"})

    assert load(f"medqa={file}").dropped == {"answer text and answer letter disagree": 1}


def test_medqa_refuses_a_letter_beyond_the_options(tmp_path: Path):
    with pytest.raises(UserError, match="line 1: answer 'E' is outside the options"):
        load(f"medqa={write(tmp_path, {**MEDQA, 'answer_idx': 'E'})}")


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "quickstart"])
def test_a_row_of_another_schema_is_refused_with_its_line(tmp_path: Path, name: str):
    file = write(tmp_path, {"question": "Q?", "options": ["x", "y"], "answer": 0})
    split = "train" if "train" in SOURCES[name].splits else "test"

    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: .*(missing|options)"):
        load(f"{name}={file}", split)


def test_a_file_in_our_own_schema_is_named_by_its_stem(tmp_path: Path):
    loaded = load(str(write(tmp_path, OWN, name="antidotes.jsonl")))

    assert loaded.name == loaded.train[0].source == "antidotes"
    assert loaded.heldout is None


def test_a_path_may_hold_an_equals_sign(tmp_path: Path):
    (tmp_path / "lr=1e-6").mkdir()

    assert load(str(write(tmp_path / "lr=1e-6", OWN))).train[0].id == "o-1"


def test_the_suffix_of_a_file_may_be_in_capitals(tmp_path: Path):
    # Given the same rows as .JSONL and as .PARQUET,
    lines = write(tmp_path, OWN, name="LINES.JSONL")
    parquet.write_table(pa.Table.from_pylist([OWN]), tmp_path / "TABLE.PARQUET")

    # when they are loaded, then they are what they would be in small letters.
    assert load(str(lines)).train[0].id == "o-1"
    assert load(str(tmp_path / "TABLE.PARQUET")).train[0].source == "TABLE"
    with pytest.raises(UserError, match=r"TABLE\.PARQUET, row 1: .*missing"):
        load(f"medmcqa={tmp_path / 'TABLE.PARQUET'}")


@pytest.mark.parametrize("spec", ["~/rows.jsonl", "pubmedqa=~/pqa.jsonl"])
def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, OWN)
    write(tmp_path, PUBMEDQA, name="pqa.jsonl")

    assert len(load(spec).train) == 1


def test_the_home_folder_of_nobody_is_refused():
    with pytest.raises(UserError, match=r"data '~no-such-user/rows\.jsonl': Could not"):
        load("~no-such-user/rows.jsonl")


def test_a_malformed_line_is_named_and_nothing_is_loaded(tmp_path: Path):
    file = write(tmp_path, OWN)
    file.write_text(file.read_text() + '{"question": "cut off')

    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: not JSON"):
        load(str(file))


def test_exact_duplicates_are_counted_and_images_are_kept(tmp_path: Path):
    image = {**OWN, "id": "o-2", "question": "What does the radiograph (image.png) show?"}
    file = write(tmp_path, OWN, image, {**OWN, "id": "o-3"})

    loaded = load(str(file))

    assert [question.id for question in loaded.train] == ["o-1", "o-2"]
    assert (loaded.rows, loaded.dropped) == (3, {"duplicate": 1})


def test_an_id_used_for_two_questions_is_refused_with_both_lines(tmp_path: Path):
    file = write(tmp_path, OWN, {**OWN, "question": "Antidote of warfarin?"})

    with pytest.raises(UserError, match=r"line 2: id 'o-1' is taken .* line 1"):
        load(str(file))


def test_a_file_without_usable_questions_is_refused_with_the_reason(tmp_path: Path):
    with pytest.raises(UserError, match=r"has no usable question$"):
        load(str(write(tmp_path)))
    with pytest.raises(UserError, match=r"has no usable question \(1 empty question or option\)"):
        load(f"medmcqa={write(tmp_path, {**MEDMCQA, 'opa': ' '})}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("medmca", r"unknown data source 'medmca'. Did you mean 'medmcqa'\? Known: quickstart, "),
        ("medmca=rows.jsonl", r"unknown data source 'medmca'. Did you mean 'medmcqa'\?"),
        ("medmcqa=", "no file after '='"),
        ("medmcqa=missing.jsonl", r"missing\.jsonl: no such file"),
        ("missing.jsonl", r"missing\.jsonl: no such file"),
        ("medmcqa=rows.txt", r"rows\.txt: expected a file ending in"),
        ("", "unknown data source ''"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(spec: str, message: str):
    with pytest.raises(UserError, match=message):
        load(spec)


def test_a_network_failure_says_to_pass_a_file():
    # conftest puts the hub's client offline, so this is its own error, not a stand-in.
    with pytest.raises(UserError, match=r"cannot load GBaker/MedQA-USMLE-4-options .*medqa=FILE"):
        load("medqa")


def test_a_name_is_loaded_from_the_hub(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def load_dataset(*arguments: Any, **keywords: Any) -> datasets.Dataset:
        calls.append((arguments, keywords))
        return datasets.Dataset.from_list([MEDMCQA])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    assert load("medmcqa").train[0].answer == "C"
    tested = load("medmcqa", split="test")
    assert (tested.train, tested.heldout[0].id) == ((), "m-1")
    assert calls == [
        (("openlifescienceai/medmcqa", None), {"split": "train"}),
        (("openlifescienceai/medmcqa", None), {"split": "validation"}),
    ]


def test_a_malformed_hub_row_is_named(monkeypatch: pytest.MonkeyPatch):
    rows = datasets.Dataset.from_list([PUBMEDQA, {**PUBMEDQA, "final_decision": "never"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)

    with pytest.raises(UserError, match=r"^qiaojin/PubMedQA \(train\), row 2: 'final_decision'"):
        load("pubmedqa")


def test_a_split_that_a_source_does_not_have_is_refused():
    with pytest.raises(UserError, match="data 'pubmedqa' has no split 'test', only train"):
        load("pubmedqa", split="test")


def test_a_file_is_whichever_split_was_asked_for(tmp_path: Path):
    loaded = load(f"medqa={write(tmp_path, MEDQA)}", split="test")

    assert (loaded.train, len(loaded.heldout)) == ((), 1)


def test_the_quickstart_ships_both_splits_without_overlap():
    loaded = load("quickstart")

    train = {(plain_text(q), frozenset(q.options)) for q in loaded.train}
    heldout = {(plain_text(q), frozenset(q.options)) for q in loaded.heldout}
    assert train
    assert heldout
    assert not train & heldout
    assert loaded.dropped == {}
    assert load("quickstart", split="heldout").heldout == loaded.heldout


def test_sources_of_a_run_share_the_held_out_questions(tmp_path: Path):
    medmcqa = write(tmp_path, *numbered(MEDMCQA, 30), name="m.jsonl")
    own = write(tmp_path, *numbered(OWN, 20), name="own.jsonl")

    loaded = load_all([f"medmcqa={medmcqa}", str(own)], heldout=11, seed=0)

    assert [q.source for q in loaded.heldout].count("medmcqa") == 6
    assert [q.source for q in loaded.heldout].count("own") == 5
    assert len(loaded.train) == 39
    assert not set(loaded.train) & set(loaded.heldout)
    assert loaded.name == "medmcqa+own"


def test_ids_stay_distinct_across_sources(tmp_path: Path):
    first = write(tmp_path, *numbered(MEDMCQA, 3), name="a.jsonl")
    second = write(tmp_path, *numbered(OWN, 3), name="b.jsonl")

    loaded = load_all([f"medmcqa={first}", str(second)], heldout=0, seed=0)

    assert [q.id for q in loaded.train] == [f"{s}/{i}" for s in ("medmcqa", "b") for i in range(3)]
    assert [q.id for q in load_all([str(second)], heldout=0, seed=0).train] == ["0", "1", "2"]


def test_one_file_given_twice_counts_as_duplicates(tmp_path: Path):
    own = str(write(tmp_path, *numbered(OWN, 5)))

    loaded = load_all([own, own], heldout=0, seed=0)

    assert len(loaded.train) == 5
    assert loaded.dropped == {"duplicate": 5}


def test_two_questions_with_one_id_in_files_of_one_name_are_refused(tmp_path: Path):
    (tmp_path / "other").mkdir()
    first = write(tmp_path, OWN)
    second = write(tmp_path / "other", {**OWN, "question": "Antidote of warfarin?"})

    with pytest.raises(UserError, match="'rows/o-1' belongs to 2 different questions"):
        load_all([str(first), str(second)], heldout=0, seed=0)


def test_what_one_source_holds_out_is_not_trained_on_from_another(tmp_path: Path):
    rows = numbered(OWN, 60)
    first = write(tmp_path, *rows[:20], name="a.jsonl")
    second = write(tmp_path, *({**row, "options": ["Protamine", "Calcium"]} for row in rows))

    loaded = load_all([str(first), str(second)], heldout=8, seed=0)

    assert not {plain_text(q) for q in loaded.train} & {plain_text(q) for q in loaded.heldout}
    assert loaded.dropped["also held out"] > 0


def test_no_data_at_all_is_refused():
    with pytest.raises(UserError, match="no data given; pass --data"):
        load_all([], heldout=0, seed=0)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("spec", "count", "letters", "dropped"),
    [
        (
            "medmcqa=medmcqa_train.jsonl",
            2986,
            None,
            {"right option given twice": 3, "wrong option given twice": 11},
        ),
        ("pubmedqa=pubmedqa_labeled_dev.jsonl", 500, {"A": 276, "B": 169, "C": 55}, {}),
        ("pubmedqa-no-context=pubmedqa_labeled_dev.jsonl", 500, {"A": 276, "B": 169, "C": 55}, {}),
        ("medqa=medqa_sample.jsonl", 24, None, {}),
    ],
)
def test_of_real_rows_only_the_ambiguous_are_lost(
    shared: Path, spec: str, count: int, letters: dict | None, dropped: dict
):
    name, file = spec.split("=")

    loaded = load(f"{name}={shared / 'data' / file}")

    assert len(loaded.train) == count
    assert loaded.dropped == dropped
    if letters:
        answers = [question.answer for question in loaded.train]
        assert {letter: answers.count(letter) for letter in letters} == letters
