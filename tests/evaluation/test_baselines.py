"""`--baselines`: the same questions, asked in three ways, and compared."""

import io
import json
import shutil

import pytest
from rich.console import Console

from alphamed_jax import embedded
from alphamed_jax.config import load_config, to_yaml
from alphamed_jax.evaluation.baselines import evaluate_baselines
from alphamed_jax.evaluation.load import load_benchmarks
from alphamed_jax.evaluation.settings import Settings
from alphamed_jax.evaluation.subject import find_subject


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training run that has learned nothing."""
    folder = tmp_path_factory.mktemp("runs") / "idle"
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(load_config(embedded.CONFIG)))
    (folder / "run.json").write_text("{}")
    shutil.copytree(embedded.MODEL, folder / "export")
    return folder


@pytest.mark.slow
def test_base_plain_base_with_the_prompt_and_trained_stand_side_by_side(run, tmp_path):
    # Given questions of which one fits the limit by the training's prompt, but not by the plain,
    settings = Settings(
        model=str(run),
        benchmarks=("quickstart",),
        limit=7,
        output=str(tmp_path / "results"),
        mesh="8x1",
        slots=8,
        max_prompt_tokens=62,
        baselines=True,
    )
    sets = load_benchmarks(settings.benchmarks, limit=7)
    console = Console(file=io.StringIO(), width=200)
    folder = evaluate_baselines(settings, find_subject(str(run)), sets, console)
    found = {
        part: json.loads((folder / part / "results.json").read_text())
        for part in ("base-plain", "base-prompt", "trained")
    }
    # then the three ask the same questions, and say why others are left out;
    blocks = {part: each["benchmarks"]["quickstart-heldout"] for part, each in found.items()}
    assert len({block["fingerprint"] for block in blocks.values()}) == 1
    assert {block["asked"] for block in blocks.values()} == {4}
    assert blocks["base-plain"]["not_asked"] == {"prompt longer than 62 tokens": 3}
    elsewhere = {"prompt too long in another of the ways that are compared": 3}
    assert blocks["base-prompt"]["not_asked"] == blocks["trained"]["not_asked"] == elsewhere
    # each is asked in its way, and a run that has learned nothing does as its base.
    names = {part: (each["model"], each["prompt"]["name"]) for part, each in found.items()}
    assert names == {
        "base-plain": ("quickstart", "plain"),
        "base-prompt": ("quickstart", "as trained"),
        "trained": (str(run), "as trained"),
    }
    compared = json.loads((folder / "compare.json").read_text())
    assert [one["name"] for one in compared["folders"]] == ["base-plain", "base-prompt", "trained"]
    assert blocks["trained"]["correct"] == blocks["base-prompt"]["correct"]
