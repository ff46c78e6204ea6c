"""`alphamed evaluate compare DIR DIR [DIR ...]`: do models differ on the same questions?

The first folder is what the others are compared with, and each other with the one before it. Of
each benchmark: difference with a paired bootstrap interval, exact McNemar test, Holm's adjustment
over the benchmarks, how many questions or samples would show the difference, which questions
flipped, and lengths. Folders that were asked other questions are refused. docs/evaluation.md has
the formulas in words.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from alphamed_jax.config_io import user_path
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.compare_tables import folder_lines, markdown, page, tables, verdict
from alphamed_jax.evaluation.comparison import compare_pair
from alphamed_jax.evaluation.paired import RESAMPLES
from alphamed_jax.evaluation.pairing import Evaluated, check_alike, read_folders
from alphamed_jax.evaluation.summary import TRUNCATED
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.terminal.display import make_console
from alphamed_jax.terminal.tables import text_table

FILES = ("compare.md", "compare.html", "compare.json")
FLIPS_ON_TERMINAL = 5


@dataclass(frozen=True)
class Arguments:
    """What is compared."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Output folders of finished `alphamed evaluate`; the first is the one to compare with."""
    output: str | None = None
    """Folder for compare.json, compare.md and compare.html; null: only the terminal."""
    seed: int = 0
    """Of the resampling."""


def compare(arguments: Arguments) -> None:
    """Compare, and print.

    Raises:
      UserError: see `compare_folders`.
    """
    folders = [Path(user_path(str(folder), "DIR")) for folder in arguments.folders]
    output = Path(user_path(arguments.output, "output")) if arguments.output else None
    if not 0 <= arguments.seed < 2**32:
        raise UserError(f"seed is {arguments.seed}: expected 0 to {2**32 - 1}.")
    compare_folders(folders, output, arguments.seed)


def compare_folders(folders: Sequence[Path], output: Path | None, seed: int = 0) -> dict[str, Any]:
    """Compare results, print the tables, and with `output` write them into it.

    Returns:
      What compare.json holds.

    Raises:
      UserError: not results, or other questions or numbers of samples (`check_alike`), or
        `output` is no folder.
    """
    if output is not None and output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; choose another --output.")
    compared = compare_evaluated(read_folders(folders), seed)
    show(compared, output)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(compared, indent=2, ensure_ascii=False, allow_nan=False)
        for name, content in zip(
            FILES, (markdown(compared), page(compared), text + "\n"), strict=True
        ):
            write_atomically(output / name, content)
    return compared


def compare_evaluated(evaluated: Sequence[Evaluated], seed: int) -> dict[str, Any]:
    """What compare.json holds: each against the first, then each against the one before it.

    Raises:
      UserError: see `check_alike`.
    """
    names, warnings = check_alike(evaluated)
    first, *others = evaluated
    pairs = [(first, other) for other in others]
    pairs += itertools.pairwise(others)
    comparisons = [compare_pair(base, other, names, seed) for base, other in pairs]
    return {
        "folders": [
            {
                "name": one.name,
                "folder": str(one.folder),
                "model": one.head.model,
                "prompt": one.head.prompt,
                "sampling": one.head.sampling,
                "rule": one.head.rule,
            }
            for one in evaluated
        ],
        "seed": seed,
        "resamples": RESAMPLES,
        "warnings": warnings + _cut(comparisons[: len(others)]),
        "comparisons": comparisons,
    }


def show(compared: Mapping[str, Any], output: Path | None) -> None:
    """Print the tables of a comparison, the first few flips, and where the rest is."""
    console = make_console()
    for line in folder_lines(compared):
        console.print(line)
    for table in tables(compared, FLIPS_ON_TERMINAL):
        console.print(text_table(table.title, table.head, table.rows))
    for warning in compared["warnings"]:
        console.print(f"warning: {warning}.", style="yellow")
    for one in compared["comparisons"]:
        console.print(f"{verdict(one)}.")
    if output is not None:
        console.print(f"{output}: {', '.join(FILES)}")


def _cut(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings about responses that were cut so often that the limit may decide."""
    sides = {
        (name, one[side]): block[side]["truncated"]
        for one in comparisons
        for name, block in one["sets"].items()
        for side in ("base", "other")
    }
    return [
        f"{truncated:.1%} of the responses of {evaluation} to {name} were cut: the limit alone may "
        "decide the difference; raise --max-new-tokens"
        for (name, evaluation), truncated in sides.items()
        if truncated is not None and truncated > TRUNCATED
    ]
