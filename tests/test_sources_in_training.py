"""A step is trained on rows of every kind that has a prompt or a rule of its own."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_run import run, tiny_config, write_inputs

from alphamed_jax import train as trainer
from alphamed_jax.config import EvalConfig, PromptConfig
from alphamed_jax.errors import UserError


def verl_rows(count: int) -> list[dict]:
    return [
        {
            "data_source": "made/up",
            "prompt": [
                {"role": "system", "content": "Answer."},
                {"role": "user", "content": f"Number {i}?\nA. one\nB. two\nC. three\nD. four"},
            ],
            "reward_model": {"style": "rule", "ground_truth": "ABCD"[i % 4]},
            "extra_info": {"index": i},
        }
        for i in range(count)
    ]


def medqa_rows(count: int) -> list[dict]:
    options = dict(zip("ABCD", ("one", "two", "three", "four"), strict=True))
    return [
        {"question": f"The sum of {i} and 1?", "options": options, "answer_idx": "ABCD"[i % 4]}
        for i in range(count)
    ]


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_inputs(tmp_path_factory.mktemp("inputs"))
    write(folder / "verl.jsonl", verl_rows(12))
    write(folder / "test.jsonl", medqa_rows(12))
    return folder


def config_of(inputs: Path, output: Path, **changes):
    data = (f"verl={inputs / 'verl.jsonl'}", f"medqa:test={inputs / 'test.jsonl'}")
    prompt = PromptConfig(instruction="Say it.", question_format="{question}\n{options}")
    return tiny_config(
        inputs,
        output,
        data=data,
        prompt=prompt,
        steps=1,
        eval=EvalConfig(questions=0),
        **({"export": False} | changes),
    )


def test_a_step_on_kept_messages_and_on_a_published_test_that_is_allowed(inputs, tmp_path):
    # Given rows of verl and of a published test, which is allowed in words,
    config = config_of(inputs, tmp_path / "run", allow_test_data=True, export=True)

    # when a step is trained,
    said = run(config)

    # then its prompts are the messages as they were, and everything says that a test was used.
    written = json.loads((config.folder / "run.json").read_text())
    samples = [json.loads(line) for line in (config.folder / "samples.jsonl").open()]
    kept = [one["prompt"] for one in samples if one["question_id"].startswith("verl/")]
    assert kept
    for prompt in kept:
        number = prompt.split("?")[0].rsplit(" ", 1)[1]
        assert prompt == f"Answer.\n\nNumber {number}?\nA. one\nB. two\nC. three\nD. four"
    [test] = config.data[1:]
    assert written["trained_on_tests"] == [test]
    assert written["questions"]["dropped"] == 0
    assert f"warning: {test}: published test data is trained on" in said
    assert "Published tests trained on" in (config.folder / "report.html").read_text()
    card = (config.folder / "export" / "README.md").read_text()
    assert "**Trained on published tests** (`medqa:test=test.jsonl`)" in card


def test_data_of_which_nothing_is_left_is_refused_with_the_reasons(inputs, tmp_path):
    # Given two files that contradict each other in all they hold,
    row = {"question": "Which?", "opa": "1", "opb": "2", "opc": "3", "opd": "4"}
    files = [write(tmp_path / f"{cop}.jsonl", [row | {"cop": cop}]) for cop in (0, 1)]
    config = config_of(inputs, tmp_path / "run")
    config = dataclasses.replace(config, data=tuple(f"medmcqa={file}" for file in files))

    with pytest.raises(UserError) as error:
        trainer.prepare(config)
    assert str(error.value) == (
        "no question is left to train on, of 2 rows: 2 same question and options with another "
        "answer."
    )


def test_without_permission_nothing_is_written(inputs, tmp_path):
    config = config_of(inputs, tmp_path / "run")

    with pytest.raises(UserError, match="the split 'test' of medqa is for measuring"):
        trainer.prepare(config)
    assert not config.folder.exists()
