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
def bind_output_dir(config: Config, identity: Fingerprint) -> Iterator[int]:
    """Hold the output folder for this start of the run; yields `finished_at`.

    Raises:
      UserError: the folder holds another run or something else, another start holds it, or the
        run is finished and was made with other data, another model or tokenizer.
    """
    check_output_dir(config)
    if at := finished_at(config):
        kept = json.loads((config.folder / "run.json").read_text("utf-8")).get("fingerprint", {})
        check_identity(str(config.folder), kept, identity)
        yield at
        return
    with lock.only_one(config.folder, "--output"):
        check_output_dir(config)  # as nobody else can change it now
        yield 0


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


def finished_at(config: Config) -> int:
    """Step at which the last start of this run came to its end, export and report included.

    0 where it did not, or where another `eval.patience` than the one that ended it lets it go on.
    """
    folder = config.folder
    if config.export and not (folder / "export").is_dir():
        return 0
    try:
        record = json.loads((folder / "run.json").read_text("utf-8"))
        early = record.get("stopped_early")
        if record["steps"] != config.steps or (early and early["patience"] != config.eval.patience):
            return 0
        return int(early["step"] if early else config.steps)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0  # not there, or torn: the end of the run is done again, and writes it anew
