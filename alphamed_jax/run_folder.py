"""`--config config.yaml` in the folder of a run repeats that run, wherever it is called from."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import TypeVar

C = TypeVar("C")
FILES = ("metrics.jsonl", "run.json", "checkpoints")
"""What the folder of a run holds beside config.yaml."""


def at_home(config: C) -> C:
    """A configuration that was read from a file; that of a run gets the run's folder as output.

    Relative paths in it are relative to the folder in which the run was started. Where that is
    not this one, as its `output` tells, the process goes there.
    """
    path = Path(str(getattr(config, "config", ""))).absolute()
    output = getattr(config, "output", None)
    folder = path.parent
    holds_a_run = path.name == "config.yaml" and any((folder / name).exists() for name in FILES)
    if not output or not holds_a_run or Path(output).absolute() == folder:
        return config
    if (start := started_in(folder, output)) is not None:
        print(f"paths are relative to {start}, where this run was started.", file=sys.stderr)
        os.chdir(start)
        return dataclasses.replace(config, config=str(path))  # type: ignore[type-var]
    return dataclasses.replace(config, output=str(folder))  # type: ignore[type-var]


def started_in(folder: Path, output: str | None) -> Path | None:
    """Where a run was started whose relative `output` is this absolute folder; None: it is not."""
    parts = Path(output or "").parts
    if not parts or Path(output or "").is_absolute() or folder.parts[-len(parts) :] != parts:
        return None
    return Path(*folder.parts[: -len(parts)])
