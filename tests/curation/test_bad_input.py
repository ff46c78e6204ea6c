"""What users give that cannot be used: one line that says where and why, to the letter."""

import json

import pyarrow as pa
import pytest
from curation.made_scores import a_question, write
from pyarrow import parquet

from alphamed_jax import curate
from alphamed_jax.data.sources import load_all
from alphamed_jax.errors import UserError

HINT = ". A file in the schema of a hub data set is NAME=FILE"
OWN = {"question": "Which?", "options": ["a", "b"], "answer": "A"}
MEDMCQA = {"question": "Which?", "opa": "1", "opb": "2", "opc": "3", "opd": "4", "cop": 0}
MEDQA = {"question": "Which?", "options": {"A": "1", "B": "2"}, "answer_idx": "A"}
VERL = {
    "prompt": [{"role": "user", "content": "Which?\nA. one\nB. two"}],
    "reward_model": {"ground_truth": "A"},
}


def rows_in(file, rows):
    """Write rows as the file's ending says."""
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        file.write_text("\n".join(lines) + "\n")
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def command(monkeypatch, capsys, *arguments):
    """Run `alphamed curate` to its end; returns exit status and what it says on stderr."""
    monkeypatch.setattr("sys.argv", ["alphamed curate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        curate.main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rows.jsonl", f"line 1: key 'question' is missing (found: 'q', 'choices', 'label'){HINT}"),
        ("rows.parquet", f"row 1: key 'question' is missing (found: 'q', 'label'){HINT}"),
        ("rows.csv", f"line 2: key 'question' is missing (found: 'q', 'label'){HINT}"),
        ("medmcqa=rows.jsonl", "line 1: key 'cop' is missing (found: 'q', 'choices', 'label')."),
        ("medqa=rows.parquet", "row 1: key 'options' is missing (found: 'q', 'label')."),
        ("pubmedqa=rows.csv", "line 2: key 'pubid' is missing (found: 'q', 'label')."),
        ("alphamed19k=rows.csv", "line 2: key 'question' is missing (found: 'q', 'label')."),
        ("verl=rows.parquet", "row 1: key 'prompt' is missing (found: 'q', 'label')."),
    ],
)
def test_a_file_without_the_columns_is_refused_with_those_it_has(tmp_path, spec, said):
    name, _, file = spec.rpartition("=")
    path = tmp_path / file
    more = {"choices": ["a", "b"]} if path.suffix == ".jsonl" else {}
    rows_in(path, [{"q": "Which?", **more, "label": 0}])

    with pytest.raises(UserError) as error:
        load_all([f"{name}={path}" if name else str(path)], 0, 0)

    assert str(error.value) == f"{path}, {said}"


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        (
            "",
            OWN | {"answer": "C"},
            "answer 'C' is outside the options, expected a letter A to B, an index from 0, or the "
            "exact text of an option",
        ),
        ("", OWN | {"answer": 2}, "answer 2 is outside the options, expected an index 0 to 1"),
        (
            "medmcqa=",
            MEDMCQA | {"cop": 4},
            "'cop' is 4, expected 0 to 3 as on the hub (the files of MedMCQA's own repository "
            "count from 1: subtract 1)",
        ),
        (
            "medmcqa=",
            MEDMCQA | {"cop": -1},
            "'cop' is -1: the answers of MedMCQA's test split are hidden, so it can be neither "
            "trained nor scored on; use its train or validation split",
        ),
        (
            "medqa=",
            MEDQA | {"answer_idx": "E"},
            "answer 'E' is outside the options, expected a letter A to B",
        ),
        (
            "verl=",
            VERL | {"reward_model": {"ground_truth": "E"}},
            "reward_model.ground_truth is 'E' (str), expected the letter of an option, A to B: "
            "only multiple-choice questions are trained on",
        ),
    ],
)
@pytest.mark.parametrize(("file", "place"), [("a.jsonl", "line 2"), ("a.parquet", "row 2")])
def test_a_label_out_of_range_is_refused_with_file_and_line(tmp_path, file, place, name, row, said):
    good = {"": OWN, "medmcqa=": MEDMCQA, "medqa=": MEDQA, "verl=": VERL}[name]
    if isinstance(row.get("answer"), int):
        good = good | {"answer": 0}  # a column of parquet is of one kind
    path = rows_in(tmp_path / file, [good, row])

    with pytest.raises(UserError) as error:
        load_all([f"{name}{path}"], 0, 0)

    assert str(error.value) == f"{path}, {place}: {said}"


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Twelve scored questions, two of each level."""
    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    return write(path, [a_question("medqa", n) for n in range(12)], [n % 6 for n in range(12)])


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (
            {"weights": "sha256:1", "model": "b model"},
            "different weights (b model, and a model)",
        ),
        ({"prompt": {"name": "plain"}}, "different prompt (prompt plain, and prompt cot)"),
    ],
)
def test_score_files_of_two_models_or_prompts_do_not_mix(
    scores, tmp_path, monkeypatch, capsys, head, said
):
    other = write(tmp_path / "other.parquet", [a_question("medqa", 99)], [5], **head)
    output = tmp_path / "set.jsonl"

    ended = command(monkeypatch, capsys, "pick", "--scores", scores, other, "--output", output)

    assert ended == (
        2,
        f"error: {other} and {scores} were scored with {said}, so that their levels do not "
        "compare; score them alike, or pick from one of them.\n",
    )
    assert not output.exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--recipe", "balanced"),
            "--recipe balanced cannot be filled: "
            + "; ".join(f"medqa L{level} lacks 198 of 200" for level in range(1, 7))
            + "; score more questions, or take --per-level 2.",
        ),
        (
            ("--recipe", "alphamed19k-like"),
            "--recipe alphamed19k-like cannot be filled: there is no question of medmcqa; "
            "give scores of medmcqa, too.",
        ),
        (
            ("--per-source", "20"),
            "the set cannot be filled: medqa lacks 8 of 20; score more questions, or take "
            "--per-source 12.",
        ),
    ],
)
def test_a_recipe_that_cannot_be_filled_says_which_level_lacks_how_many(
    scores, tmp_path, monkeypatch, capsys, flags, said
):
    output = tmp_path / "set.jsonl"

    ended = command(monkeypatch, capsys, "pick", "--scores", scores, "--output", output, *flags)

    assert ended == (2, f"error: {said}\n")
    assert list(tmp_path.iterdir()) == []
