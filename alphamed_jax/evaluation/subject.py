"""What `--model` names: a Hugging Face folder, a hub id, a training run, or the embedded model."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from alphamed_jax import embedded, run_folder
from alphamed_jax.config import Config, load_config
from alphamed_jax.errors import UserError
from alphamed_jax.model.hf_folder import CONFIG as MODEL_CONFIG
from alphamed_jax.model.hf_folder import commit_of, local
from alphamed_jax.runtime import agreement

EXPORT = "export"


@dataclass(frozen=True)
class Subject:
    """A model to evaluate."""

    name: str
    """As it was given."""
    model: str
    """Folder or hub id of its weights."""
    revision: str | None = None
    """Commit of a hub id, where the hub or its cache tell."""
    training: Config | None = None
    """Configuration of the run that its weights were trained in; None where nobody tells."""

    adapter: str | None = None
    """Folder of an adapter beside the weights."""

    @property
    def title(self) -> str:
        """Last part of its name, for a folder of results."""
        title = Path(self.name).resolve().name if local(self.name) else Path(self.name).name
        if self.adapter is None:
            return title
        place = Path(self.adapter).absolute()
        return f"{title}-{place.parent.name if is_run(place.parent) else place.name}"

    @property
    def label(self) -> str:
        """Its name in results."""
        return f"{self.name} with {self.adapter}" if self.adapter else self.name


def find_subject(name: str, revision: str | None = None, part: str = "") -> Subject:
    """Find out what `--model` names. The hub is asked by process 0 alone, once.

    The model of a run's folder is its export. A folder within that of a run, as its
    `export-best`, belongs to that run, too.

    Args:
      part: tells the models of one start apart.

    Raises:
      UserError: no such model, a run without an export, or a revision of a folder.
    """
    folder = local(name)
    asks = folder is None and agreement.this_process() == 0
    found = commit_of(name, revision) if asks else None
    commit = agreement.of_main(f"commit {part}", found or "")
    if folder is None:
        return Subject(name, name, commit or revision)
    if revision is not None:
        raise UserError(
            f"--model-revision {revision} is for models of the hub, and {name} is a folder; leave "
            "it out."
        )
    if name == "quickstart":
        return Subject(name, name, training=load_config(embedded.CONFIG))
    if is_run(folder):
        return Subject(name, str(exported(folder)), training=_config_of(folder))
    if is_run(folder.absolute().parent):
        return Subject(name, name, training=_config_of(folder.absolute().parent))
    return Subject(name, name)


def beside(subject: Subject, adapter: str | None) -> Subject:
    """The subject with an adapter; one in the folder of a run is asked as that run asked."""
    if adapter is None:
        return subject
    run = Path(adapter).absolute().parent
    training = _config_of(run) if is_run(run) else subject.training
    return dataclasses.replace(subject, adapter=adapter, training=training)


def is_run(folder: Path) -> bool:
    """Whether a folder is the output of a training run."""
    return (folder / "config.yaml").is_file() and any(
        (folder / name).exists() for name in run_folder.FILES
    )


def exported(folder: Path) -> Path:
    """The Hugging Face folder that a run has written.

    Raises:
      UserError: it has written none.
    """
    export = folder / EXPORT
    if not (export / MODEL_CONFIG).is_file():
        ended = (folder / "run.json").is_file()
        how = (
            "it was trained with --no-export; start the same command without it"
            if ended
            else f"finish it first: alphamed train --config {folder / 'config.yaml'}"
        )
        raise UserError(f"{folder}: a training run without {EXPORT}, so without weights; {how}.")
    return export


def base_of(subject: Subject) -> Subject:
    """The model that the training run of a subject began with.

    Raises:
      UserError: the subject is of no training run, or its base model is not here any more.
    """
    folder = local(subject.name)
    if subject.training is None or folder is None or subject.name == "quickstart":
        raise UserError(
            f"--baselines: {subject.name} is not the output folder of a training run, so that "
            "base model and training's prompt are not known; evaluate each by --model."
        )
    training = subject.training
    model, start = training.model, run_folder.started_in(folder.absolute(), training.output)
    if start is not None and (start / model).is_dir():  # a path of where the run was started
        model = str(start / model)
    base = find_subject(model, training.model_revision, "of the base")
    return dataclasses.replace(base, training=training)


def _config_of(folder: Path) -> Config:
    return load_config(folder / "config.yaml")
