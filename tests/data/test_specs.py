"""What users write for data names a source, a split of it, and where it lies; nothing else."""

import json
from pathlib import Path

import pytest

from alphamed_jax.data.sources import load, load_all
from alphamed_jax.data.specs import published_tests, resolve
from alphamed_jax.errors import UserError

LETTERS = "ABCD"


def medqa(number: int, word: str = "train") -> dict:
    options = {letter: f"{word} {number} {letter}" for letter in LETTERS}
    question = f"Which of the options of the {word} row {number} is the right one, would you say?"
    return {"question": question, "options": options, "answer_idx": LETTERS[number % 4]}


def write(file: Path, rows: list[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "name", "split", "path"),
    [
        ("medqa", "medqa", None, None),
        ("medqa:test", "medqa", "test", None),
        ("medqa:train=a.csv", "medqa", "train", Path("a.csv")),
        ("medqa=runs/a:b=c.jsonl", "medqa", None, Path("runs/a:b=c.jsonl")),
        ("runs/a:b.jsonl", "a:b", None, Path("runs/a:b.jsonl")),
        ("my.csv", "my", None, Path("my.csv")),
    ],
)
def test_a_spec_is_a_name_a_split_and_a_place(text, name, split, path):
    found = resolve(text)

    assert (found.source.name, found.split, found.path) == (name, split, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("medqa:dev", r"data 'medqa:dev' has no split 'dev', only train, test$"),
        ("medqa:", r"data 'medqa:' has no split '', only train, test$"),
        ("medmcqa:validation", r"only train, test \(validation on the hub\)$"),
        ("pubmedqa:test", r"only train \(the 500 rows of its published test are left out of it\)$"),
        ("medqa:test=", r"no file after '='; expected medqa:test=FILE"),
        ("mdqa:test", r"unknown data source 'mdqa'\. Did you mean 'medqa'\?"),
    ],
)
def test_a_split_that_is_not_there_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        resolve(text)


@pytest.mark.parametrize("spec", ["medqa:test", "medqa:test=rows.jsonl", "quickstart:heldout"])
def test_what_models_are_measured_on_is_not_trained_on(spec):
    # Refused before anything is read: the file is not there.
    with pytest.raises(UserError, match=r"is not trained on; .*evaluate.*With --allow-test-data"):
        load_all([spec], heldout=0, seed=0)


def test_a_published_test_is_trained_on_where_it_is_allowed_in_words(tmp_path: Path):
    test = write(tmp_path / "test.jsonl", [medqa(i, "test") for i in range(8)])

    loaded = load_all([f"medqa:test={test}"], heldout=2, seed=0, allow_test_data=True)

    assert (len(loaded.train), len(loaded.heldout), loaded.dropped) == (6, 2, {})


def test_load_gives_a_named_split_as_if_it_was_asked_for(tmp_path: Path):
    test = write(tmp_path / "test.jsonl", [medqa(i, "test") for i in range(8)])

    assert load(f"medqa:test={test}").heldout == load(f"medqa={test}", "test").heldout
    assert load("quickstart:heldout").heldout == load("quickstart", split="heldout").heldout
    assert load(f"medqa:test={test}").train == ()


def test_the_specs_that_name_tests_are_told_by_their_text():
    given = ["medqa", "medqa:train", "medqa:test", "medmcqa:test=a.csv", "runs/a:test.jsonl", ""]

    assert published_tests(given) == ["medqa:test", "medmcqa:test=a.csv"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """MedQA as `hf download --local-dir` leaves it."""
    folder = tmp_path / "medqa"
    write(folder / "phrases_no_exclude_train.jsonl", [medqa(i) for i in range(40)])
    write(folder / "phrases_no_exclude_test.jsonl", [medqa(i, "test") for i in range(8)])
    write(folder / ".cache" / "huggingface" / "download" / "train.jsonl", [])
    (folder / "README.md").write_text("train")
    return folder


def test_a_folder_of_files_of_the_hub_stands_for_the_hub(folder: Path):
    assert len(load(f"medqa={folder}").train) == 40
    assert len(load(f"medqa:test={folder}").heldout) == 8


def test_the_published_test_beside_it_in_a_folder_is_left_out(folder: Path):
    write(
        folder / "phrases_no_exclude_train.jsonl",
        [*(medqa(i) for i in range(40)), medqa(3, "test")],
    )

    loaded = load_all([f"medqa={folder}"], heldout=0, seed=0)

    assert (len(loaded.train), loaded.dropped) == (40, {"official test": 1})


def test_the_parts_of_a_split_are_read_in_their_order_and_all_of_them(tmp_path: Path):
    parts = [f"data/train-0000{i}-of-00003.jsonl" for i in range(3)]
    for number, part in enumerate(parts):
        write(tmp_path / part, [medqa(number)])

    loaded = load(f"medqa={tmp_path}")
    assert [question.answer for question in loaded.train] == ["A", "B", "C"]

    (tmp_path / parts[1]).unlink()
    with pytest.raises(UserError, match=r"2 of the 3 parts of data/train are there; download"):
        load(f"medqa={tmp_path}")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train.jsonl", "old/train.jsonl"], r"old/train\.jsonl and train\.jsonl may be its split"),
        (["dev.jsonl"], r"no file with 'train' in its name \(found: dev\.jsonl\); name the file"),
        ([], r"no file with 'train' in its name \(found: none ending in"),
    ],
)
def test_a_folder_in_which_the_split_is_not_clear_is_refused(tmp_path: Path, files, message):
    for name in files:
        write(tmp_path / name, [medqa(0)])

    with pytest.raises(UserError, match=message):
        load(f"medqa={tmp_path}")


def test_a_folder_is_no_file_in_our_own_schema(tmp_path: Path):
    with pytest.raises(UserError, match="is a folder, expected a file"):
        load(f"quickstart={tmp_path}")
