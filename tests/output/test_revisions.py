"""A run keeps the commits of the hub that it began with."""

import dataclasses

import huggingface_hub
import pytest

from alphamed_jax.config import Config, load_config
from alphamed_jax.errors import UserError
from alphamed_jax.output import record
from alphamed_jax.output.folder import check_output_dir
from alphamed_jax.output.revisions import settle_revisions, with_commits

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub whose model has two commits, the newer one being `main`; and what it was asked."""
    asked = []

    def download(name, file, revision=None):
        asked.append(revision)
        commit = {None: NEW, "main": NEW, "v1": OLD, OLD: OLD, NEW: NEW}.get(revision)
        if commit is None:
            raise OSError(f"Revision Not Found for {name}")
        return str(tmp_path / "hub" / "snapshots" / commit / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


@pytest.fixture
def config(tmp_path):
    return Config(model="some/model", output=str(tmp_path / "run"))


@pytest.mark.parametrize(("given", "commit"), [(None, NEW), ("v1", OLD), (NEW, NEW)])
def test_a_revision_is_resolved_to_a_commit(hub, config, given, commit):
    settled, said = settle_revisions(dataclasses.replace(config, model_revision=given))

    assert (settled.model_revision, said) == (commit, "")


def test_a_run_keeps_its_commits_and_says_that_the_hub_has_a_newer_one(hub, config):
    # Given a run that began with an older commit of model and data,
    began = dataclasses.replace(config, model_revision=OLD, data=("medmcqa",))
    began = with_commits(began, {"medmcqa": "c" * 40, "own": None})
    record.write_config(config.folder, began)
    assert load_config(config.folder / "config.yaml").data_revisions == (f"medmcqa={'c' * 40}",)
    # when the same command is given again,
    again = dataclasses.replace(config, data=("medmcqa",))
    settled, said = settle_revisions(again)
    # then it goes on with them,
    assert settled.model_revision == OLD
    assert settled.data_revisions == (f"medmcqa={'c' * 40}",)
    assert said == f"the hub has a newer some/model ({NEW}); this run goes on with {OLD}."
    check_output_dir(settled)
    # and one that asks for another is refused.
    moved, _ = settle_revisions(dataclasses.replace(again, model_revision="main"))
    with pytest.raises(UserError, match="holds a run with model_revision"):
        check_output_dir(moved)


def test_a_revision_that_is_not_there_or_is_of_a_folder_is_refused(hub, config, tmp_path):
    with pytest.raises(UserError, match=r"some/model in revision v9: .*Revision Not Found"):
        settle_revisions(dataclasses.replace(config, model_revision="v9"))
    with pytest.raises(UserError, match="--model-revision v1 is for models of the hub"):
        settle_revisions(dataclasses.replace(config, model=str(tmp_path), model_revision="v1"))
