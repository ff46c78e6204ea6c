"""Whose an evaluation's folder is: bound to its settings, model and questions by settings.json.

So is the folder of a scoring (`curation.scoring`), which is told apart by its `Kind`.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alphamed_jax.config_io import shown
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.journal import NAME as JOURNAL
from alphamed_jax.output import lock
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.runtime.agreement import Fingerprint, differing, must_stay

NAME = "settings.json"


class Kind(NamedTuple):
    """What a folder holds, for messages."""

    what: str
    command: str
    """That makes it."""
    journal: str
    """File that is not needed any more once all is done."""


EVALUATION = Kind("an evaluation", "alphamed evaluate", JOURNAL)


@contextlib.contextmanager
def bind_folder(
    folder: Path, settings: dict[str, Any], identity: Fingerprint, kind: Kind = EVALUATION
) -> Iterator[bool]:
    """Hold a folder for this start of an evaluation; yields whether the evaluation is finished.

    Args:
      settings: those that the results depend on.
      identity: model, tokenizer, questions and how numbers are computed; versions are noted.

    Raises:
      UserError: the folder holds another evaluation or something else, or another start holds it.
    """
    _check(folder, settings, identity, kind)
    with lock.only_one(folder, "--output"):
        kept = _check(folder, settings, identity, kind)  # as nobody else can change it now
        if kept is None:
            _write(folder, settings, identity, kind, finished=False)
        yield bool(kept and kept["finished"])


def mark_finished(
    folder: Path, settings: dict[str, Any], identity: Fingerprint, kind: Kind = EVALUATION
) -> None:
    """Say that all results are written; the journal has done its duty."""
    _write(folder, settings, identity, kind, finished=True)
    (folder / kind.journal).unlink(missing_ok=True)


def _write(
    folder: Path, settings: dict[str, Any], identity: Fingerprint, kind: Kind, *, finished: bool
) -> None:
    content = {
        "command": kind.command,
        "settings": settings,
        "fingerprint": identity,
        "finished": finished,
    }
    write_atomically(folder / NAME, json.dumps(content, indent=2) + "\n")


def _check(
    folder: Path, settings: dict[str, Any], identity: Fingerprint, kind: Kind
) -> dict[str, Any] | None:
    """What a folder is bound to; None: to nothing yet."""
    path = folder / NAME
    if not path.is_file():
        if folder.exists() and (
            not folder.is_dir() or any(entry.name != lock.NAME for entry in folder.iterdir())
        ):
            raise UserError(
                f"{folder} exists and is not the folder of {kind.what}; choose another --output."
            )
        return None
    try:
        kept = json.loads(path.read_text("utf-8"))
        before, known, _ = kept["settings"], kept["fingerprint"], kept["finished"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not as `{kind.command}` writes it ({error}); delete the folder to start "
            "over, or choose another --output."
        ) from None
    if (made_by := kept.get("command", EVALUATION.command)) != kind.command:
        raise UserError(f"{folder} was made by `{made_by}`; choose another --output.")
    now = json.loads(json.dumps(settings))
    for name in now:
        if before.get(name) != now[name]:
            was, wanted = shown(before.get(name)), shown(now[name])
            raise UserError(
                f"{folder} holds {kind.what} with {name} {was}, but now it is {wanted}; "
                "choose another --output, or delete the folder to start over."
            )
    here = json.loads(json.dumps(must_stay(identity)))
    if parts := differing(must_stay(known), here, now="now "):
        raise UserError(
            f"{folder} holds {kind.what} that differs in {', '.join(parts)}; give back what it "
            "was made with, or choose another --output."
        )
    return kept
