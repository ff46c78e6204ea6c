"""Models and data of the hub change: a run keeps the commits that it began with."""

import dataclasses
import json
from collections.abc import Mapping

from alphamed_jax.config import Config
from alphamed_jax.errors import UserError
from alphamed_jax.model.hf_folder import commit_of, local
from alphamed_jax.output import record
from alphamed_jax.runtime import agreement


def settle_revisions(config: Config) -> tuple[Config, str]:
    """Name the commits of what comes from the hub, and say where it has a newer model.

    They are those asked for, else those that the run in the output folder keeps, else the newest.
    Process 0 finds out, as it has that folder, and as the hub may change between two questions.
    Commits of data that no run keeps become known as the data is loaded: see `with_commits`.

    Raises:
      UserError: a revision of a folder, or one that the hub does not have.
    """
    is_hub_id = local(config.model) is None
    if config.model_revision is not None and not is_hub_id:
        raise UserError(
            f"--model-revision {config.model_revision} is for models of the hub, and "
            f"{config.model} is a folder; leave it out."
        )
    commit, data, said = None, config.data_revisions, ""
    if agreement.this_process() == 0:
        kept = record.kept_config(config.folder)
        if kept is not None and kept.data == config.data and not data:
            data = kept.data_revisions
        if is_hub_id:
            same = kept is not None and kept.model == config.model
            commit, said = _find(config, kept.model_revision if kept and same else None)
    commit, data = json.loads(agreement.of_main("revisions", json.dumps([commit, data])))
    # Another process may have a copy in a folder: then what is in it is compared.
    if agreement.this_process() != 0:
        named = {spec.partition(":")[0] for spec in config.data}
        data = [pair for pair in data if pair.partition("=")[0] in named]
    model = (commit or config.model_revision) if is_hub_id else None
    return dataclasses.replace(config, model_revision=model, data_revisions=tuple(data)), said


def with_commits(config: Config, loaded: Mapping[str, str | None]) -> Config:
    """The configuration with the commits of the data that was loaded: source -> commit."""
    commits = tuple(f"{name}={commit}" for name, commit in loaded.items() if commit)
    return dataclasses.replace(config, data_revisions=commits) if commits else config


def _find(config: Config, kept: str | None) -> tuple[str | None, str]:
    """The commit of the model, None where nothing tells; and what is to be said."""
    if config.model_revision is not None or kept is None:
        return commit_of(config.model, config.model_revision), ""
    try:
        newest = commit_of(config.model, None)
    except UserError:  # no network: what is kept may be in the cache all the same
        return kept, ""
    if newest in (None, kept):
        return kept, ""
    return kept, f"the hub has a newer {config.model} ({newest}); this run goes on with {kept}."
