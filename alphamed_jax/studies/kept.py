"""The numbers behind docs/studies.md: what each finished run came to, kept beside the page.

From DOCS/STUDY.json tables and pictures are made, and checked, without the runs, and a study can be
continued where they are not. A run whose folder is there counts before what was kept of it.
"""

import json
from pathlib import Path
from typing import Any

from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import read_object, write_atomically
from alphamed_jax.studies.plan import Run

Kept = dict[str, Any]
"""Name -> numbers; those of a run hold its words, too, see `words_of`."""
_PLACES = ("--model", "--data")
"""Flags whose values depend on where the files lie."""


def read_kept(docs: Path | None, study: str) -> Kept:
    """What is kept of a study; nothing where there is no file.

    Raises:
      UserError: the file cannot be read.
    """
    if docs is None or not (path := docs / f"{study}.json").is_file():
        return {}
    return read_object(path)


def write_kept(docs: Path, study: str, kept: Kept) -> None:
    """Write what is kept of a study, a line for each name."""
    lines = [f"{json.dumps(name)}: {json.dumps(kept[name])}" for name in sorted(kept)]
    write_atomically(docs / f"{study}.json", "{\n" + ",\n".join(lines) + "\n}\n")


def kept_run(kept: Kept, run: Run) -> dict[str, Any] | None:
    """What is kept of a run; None: nothing.

    Raises:
      UserError: it was a run of other words.
    """
    record = kept.get(run.name)
    if record is not None and record["words"] != words_of(run):
        words = " ".join(record["words"])
        raise UserError(
            f"what is kept of {run.name} is of another run ({words}); delete it, or train anew."
        )
    return record


def words_of(run: Run) -> list[str]:
    """The words of a run, less those that say where its files lie."""
    left, value_of = [], ""
    for word in run.words:
        value_of = word if word.startswith("--") else value_of
        if value_of not in _PLACES:
            left.append(word)
    return left
