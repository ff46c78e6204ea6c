"""What `--model` names: folders, the embedded model, and training runs with their exports."""

import dataclasses
import shutil

import pytest

from alphamed_jax import embedded
from alphamed_jax.config import Config, PromptConfig, to_yaml
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.subject import base_of, find_subject


def a_run(folder, *, export=True, finished=True, **changes):
    """The folder of a training run."""
    folder.mkdir(parents=True)
    config = Config(output=str(folder), prompt=PromptConfig(instruction="As trained."))
    (folder / "config.yaml").write_text(to_yaml(dataclasses.replace(config, **changes)))
    (folder / "metrics.jsonl").touch()
    if finished:
        (folder / "run.json").write_text("{}")
    if export:
        shutil.copytree(embedded.MODEL, folder / "export")
    return folder


def test_the_embedded_model_is_asked_as_it_was_trained():
    subject = find_subject("quickstart")
    assert (subject.model, subject.title) == ("quickstart", "quickstart")
    assert subject.training.prompt.style == "plain"
    assert subject.training.rollout.max_new_tokens == 24


def test_a_folder_is_the_model_in_it(tmp_path):
    shutil.copytree(embedded.MODEL, tmp_path / "model")
    subject = find_subject(str(tmp_path / "model"))
    assert (subject.model, subject.title) == (str(tmp_path / "model"), "model")
    assert subject.training is None


@pytest.mark.parametrize("within", ["", "export", "export-best"])
def test_a_run_is_its_export_asked_by_its_own_prompt(tmp_path, within):
    run = a_run(tmp_path / "runs" / "mine")
    shutil.copytree(embedded.MODEL, run / "export-best")
    subject = find_subject(str(run / within))
    assert subject.model == str(run / (within or "export"))
    assert subject.training.prompt.instruction == "As trained."


def test_a_run_without_an_export_is_refused_with_what_makes_one(tmp_path):
    unfinished = a_run(tmp_path / "a", export=False, finished=False)
    with pytest.raises(UserError, match=r"finish it first: alphamed train --config .*config\.yaml"):
        find_subject(str(unfinished))
    without = a_run(tmp_path / "b", export=False)
    with pytest.raises(UserError, match="trained with --no-export; start the same command"):
        find_subject(str(without))


def test_a_revision_is_for_models_of_the_hub(tmp_path):
    with pytest.raises(UserError, match="--model-revision main is for models of the hub"):
        find_subject(str(a_run(tmp_path / "a")), "main")


def test_the_base_of_a_run_is_the_model_that_it_began_with(tmp_path, monkeypatch):
    # Given a run that was started with relative paths,
    shutil.copytree(embedded.MODEL, tmp_path / "models" / "base")
    run = a_run(tmp_path / "runs" / "mine", model="models/base", output="runs/mine")
    # when it is evaluated from elsewhere, then its base is found, and asked as it was trained.
    monkeypatch.chdir(tmp_path / "runs")
    base = base_of(find_subject(str(run)))
    assert base.model == str(tmp_path / "models" / "base")
    assert base.training.prompt.instruction == "As trained."


def test_what_is_no_run_has_no_baselines(tmp_path):
    shutil.copytree(embedded.MODEL, tmp_path / "model")
    for name in ("quickstart", str(tmp_path / "model")):
        with pytest.raises(UserError, match="is not the output folder of a training run"):
            base_of(find_subject(name))
