"""Whose an output folder is: bound to one run for good, and to one start of it at a time."""

import contextlib
import json
from collections.abc import Iterator

from alphamed_jax.config import Config, load_config
from alphamed_jax.errors import UserError
from alphamed_jax.output import lock
from alphamed_jax.output.record import check_identity, check_same
from alphamed_jax.runtime.agreement import Fingerprint


@contextlib.contextmanager
def bind_output_dir(config: Config, identity: Fingerprint) -> Iterator[bool]:
    """Hold the output folder for this start of the run; yields whether the run is finished.

    Raises:
      UserError: the folder holds another run or something else, another start holds it, or the
        run is finished and was made with other data, another model or tokenizer.
    """
    check_output_dir(config)
    if is_finished(config):
        kept = json.loads((config.folder / "run.json").read_text("utf-8")).get("fingerprint", {})
        check_identity(str(config.folder), kept, identity)
        yield True
        return
    with lock.only_one(config.folder, "--output"):
        check_output_dir(config)  # as nobody else can change it now
        yield False


def check_output_dir(config: Config) -> None:
    """Check that a run of `config` may live in its output folder; nothing is written.

    Raises:
      UserError: the folder holds a run of another configuration, or something else.
    """
    folder = config.folder
    path = folder / "config.yaml"
    if path.is_file():
        check_same(str(folder), load_config(path), config, "--output")
    elif folder.exists() and (
        not folder.is_dir() or any(entry.name != lock.NAME for entry in folder.iterdir())
    ):
        raise UserError(f"{folder} exists and is not the folder of a run; choose another --output.")


def is_finished(config: Config) -> bool:
    """Whether the last start of this run came to its end, export and report included."""
    folder = config.folder
    exported = not config.export or (folder / "export").is_dir()
    try:
        steps = json.loads((folder / "run.json").read_text("utf-8"))["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # not there, or torn: the end of the run is done again, and writes it anew
    return steps == config.steps and exported
