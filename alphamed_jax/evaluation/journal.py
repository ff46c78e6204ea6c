"""The journal of an evaluation: every response as it ends, so that a killed one goes on.

One line of JSON a response, appended by process 0 and handed to the operating system at once. What
a crash of the machine takes with it is sampled again, to the same tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.score import Response

NAME = "journal.jsonl"


class Place(NamedTuple):
    """Which response of an evaluation it is."""

    set: str
    """Name of the set."""
    id: str
    """Of the question."""
    sample: int


def read_journal(folder: Path) -> dict[Place, Response]:
    """What is written down. A last line that was torn is taken out of the file.

    Raises:
      UserError: another line is none of a journal.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    found: dict[Place, Response] = {}
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            row: dict[str, Any] = json.loads(line)
            place = Place(row.pop("set"), row.pop("id"), row.pop("sample"))
            found[place] = Response(**row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{path}, line {number}: not a line of a journal ({error}); delete the folder to "
                "start over."
            ) from None
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return found


class Journal:
    """Appends to the journal of a folder; in processes that do not write it does nothing."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        """Open it; the folder is there."""
        self._file = (folder / NAME).open("ab") if enabled else None

    def add(self, place: Place, response: Response) -> None:
        """Write a response down."""
        if self._file is not None:
            row: Mapping[str, Any] = place._asdict() | asdict(response)
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
