"""A run that evaluates benchmarks: what it logs, and that what it learns is the same without."""

import json

import pytest
from tiny_run import rows_of, run, tiny_config, write_inputs, write_questions

from alphamed_jax.config import EvalConfig, parse_config
from alphamed_jax.errors import UserError


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = write_inputs(tmp_path_factory.mktemp("inputs"))
    write_questions(folder / "bench.jsonl", count=9)
    return folder


def with_benchmark(inputs, **changes):
    given = {"questions": 6, "data": (f"mine={inputs / 'bench.jsonl'}",), "limit": 4}
    return EvalConfig(**(given | changes))


@pytest.fixture(scope="module")
def evaluated(inputs, tmp_path_factory):
    """A run of three steps that evaluates after each, and what it printed."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    wanted = with_benchmark(inputs, every=1, best="mine")
    config = tiny_config(inputs, folder, steps=3, eval=wanted)
    return config, run(config)


def evaluation(config, step):
    return json.loads((config.folder / "eval" / f"step_{step:06d}.json").read_text())


def test_evaluations_leave_what_is_learned_and_sampled_as_it_is(evaluated, inputs, tmp_path):
    # Given a run that evaluates held-out questions and a benchmark after each step,
    config, _ = evaluated
    # when it runs without,
    plain = tiny_config(inputs, tmp_path / "run", steps=3, export=False)
    run(plain)
    # then rows and samples are the same to the last bit.
    ours, theirs = (rows_of(c.folder / "metrics.jsonl") for c in (config, plain))
    for row in (*ours, *theirs):
        for key in [key for key in row if key.startswith("eval/")]:
            del row[key]
    assert ours == theirs
    assert rows_of(config.folder / "samples.jsonl") == rows_of(plain.folder / "samples.jsonl")
    # And the held-out questions are sampled as without the benchmark.
    without = evaluation(plain, 3)
    assert {key: evaluation(config, 3)[key] for key in without} == without


def test_rows_of_evaluated_steps_have_the_accuracies(evaluated):
    config, printed = evaluated
    for row in rows_of(config.folder / "metrics.jsonl"):
        found = evaluation(config, row["step"])
        block = found["benchmarks"]["mine"]
        assert (block["asked"], block["rows"], block["seed"]) == (4, 9, 0)
        assert {key: value for key, value in row.items() if key.startswith("eval/")} == {
            "eval/sampled/accuracy": found["sampled"]["accuracy"],
            "eval/greedy/accuracy": found["greedy"]["accuracy"],
            "eval/benchmarks/mine/accuracy": block["accuracy"],
            "eval/benchmarks/mine/greedy/accuracy": block["greedy"]["accuracy"],
            "eval/macro": block["accuracy"],
        }
        assert f"  mine after step {row['step']}, 4 questions | sampled accuracy" in printed


def test_a_benchmark_may_tell_the_best_step(evaluated):
    config, _ = evaluated
    accuracies = [evaluation(config, step)["macro"] for step in range(4)]
    best = json.loads((config.folder / "run.json").read_text())["best"]
    assert best["by"] == "mine"
    assert best["step"] == accuracies.index(max(accuracies))
    assert (config.folder / "export-best").is_dir() == (best["step"] > 0)


def test_the_report_shows_benchmarks_and_the_best_step(evaluated):
    config, _ = evaluated
    page = (config.folder / "report.html").read_text()
    assert "Benchmarks during training" in page
    assert "<th>mine, sampled</th><td>4 of 9</td>" in page
    assert "<th>mine, greedy</th><td>4 of 9</td>" in page
    assert "Sampled accuracy on benchmarks" in page
    assert "Best step by mine: " in page


def test_benchmarks_are_named_with_commas_or_blanks():
    given = ["--eval.benchmarks", "medqa,medmcqa", "pubmedqa"]
    config = parse_config(given, "train", "")
    assert config.eval.benchmarks == ("medqa", "medmcqa", "pubmedqa")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmarks": ("medqaa",)}, r"unknown benchmark 'medqaa'\. Did you mean 'medqa'\?"),
        ({"best": "mime"}, r"eval.best is 'mime': expected .* Did you mean 'mine'\?"),
        ({"data": ("mine=nowhere.jsonl",)}, "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(
    inputs, tmp_path, changes, message
):
    config = tiny_config(inputs, tmp_path / "run", eval=with_benchmark(inputs, **changes))
    with pytest.raises(UserError, match=message):
        run(config)
    assert not (tmp_path / "run").exists()
