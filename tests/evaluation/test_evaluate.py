"""The command as a user starts it: one line for bad input, a folder of results for good."""

import json
import os
import re
import subprocess
import sys

import pytest

from alphamed_jax import evaluate
from alphamed_jax.config_io import flag_names
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.settings import Settings

QUICKSTART = ("--model", "quickstart", "--benchmarks", "quickstart")


def read(*flags):
    return evaluate.read(flags, "alphamed evaluate", "")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "nothing to evaluate: --model FOLDER_OR_ID_OR_RUN asks a model, and --responses"),
        (("--benchmarks", "medqa"), "nothing to evaluate: --model"),
        (("--model", "quickstart"), "no questions: name --benchmarks, as medqa,medmcqa"),
        ((*QUICKSTART, "--responses", "r.jsonl"), "--model and --responses are two things"),
        (("--responses", "r.jsonl", "--benchmarks", "medqa"), "--data NAME=FILE"),
        ((*QUICKSTART, "--samples", "4"), "samples is 4 at temperature 0, where all responses"),
        ((*QUICKSTART, "--top-p", "0.9"), "change nothing at temperature 0"),
        ((*QUICKSTART, "--temperature", "-1"), "temperature is -1.0: expected a number from 0 on"),
        ((*QUICKSTART, "--temperature", "nan"), "temperature is nan"),
        ((*QUICKSTART, "--limit", "0"), "limit is 0: expected at least 1"),
        ((*QUICKSTART, "--seed", "-1"), "seed is -1: expected 0 to 4294967295"),
        ((*QUICKSTART, "--baselines", "--prompt", "cot"), "leave --prompt out"),
        ((*QUICKSTART, "--data", "a=b", "--data", "c=d"), "--data is given twice"),
        ((*QUICKSTART, "--output", "gs://bucket/folder"), "expected a folder of this machine"),
        ((*QUICKSTART, "--benchmark", "medqa"), "Did you mean '--benchmarks'?"),
        (("compre", "a", "b"), "unknown argument 'compre'. Did you mean 'compare'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(flags, said):
    with pytest.raises(UserError) as refused:
        read(*flags)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_may_have_commas_or_blanks_between_them():
    for names in (["medqa,medmcqa", "gpqa-medical"], ["medqa", "medmcqa", "gpqa-medical"]):
        found = read("--model", "quickstart", "--benchmarks", *names, "--variants", "order=2,x")
        assert found.benchmarks == ("medqa", "medmcqa", "gpqa-medical")
        assert found.variants == ("order=2", "x")


def test_every_flag_is_at_the_top_level():
    assert all(re.fullmatch("--[a-z-]+", flag) for flag in flag_names(Settings))


def command(*flags):
    """Start the command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    return subprocess.run(
        [sys.executable, "-m", "alphamed_jax", "evaluate", *flags],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_bad_input_is_one_line_exit_2_and_nothing_is_written(tmp_path):
    output = tmp_path / "results"
    done = command("--model", "quickstart", "--benchmarks", "medqqa", "--output", str(output))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: unknown benchmark 'medqqa'. Did you mean 'medqa'?")
    assert not output.exists()


@pytest.mark.slow
def test_a_sample_of_a_benchmark_and_its_changed_forms_are_one_folder_of_results(tmp_path):
    output = tmp_path / "results"
    flags = (*QUICKSTART, "--limit", "6", "--variants", "order=1", "--output", str(output))
    done = command(*flags, "--mesh", "1x1", "--slots", "8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "quickstart-heldout: 6 questions, a sample of the 240 by seed 0" in done.stdout
    assert "12 responses in" in done.stdout
    files = {path.name for path in output.iterdir()} - {".lock"}
    assert files == {
        "settings.json",
        "results.json",
        "results.md",
        "report.html",
        "quickstart-heldout.samples.jsonl",
        "quickstart-heldout@order=1.samples.jsonl",
    }
    results = json.loads((output / "results.json").read_text())
    block = results["benchmarks"]["quickstart-heldout"]
    assert (block["rows"], block["questions"], block["asked"], block["seed"]) == (240, 6, 6, 0)
    assert block["variants"]["order=1"]["asked"] == 6
    assert results["prompt"]["name"] == "as trained"
    assert results["sampling"]["max_new_tokens"] == 24
    # The same command again, on another mesh, says that nothing is left to do.
    again = command(*flags, "--mesh", "2x1")
    assert again.returncode == 0
    assert "is finished" in again.stdout
