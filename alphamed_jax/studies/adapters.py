"""`python -m alphamed_jax.studies.adapters`: low-rank adapters beside training all weights.

    python -m alphamed_jax.studies.adapters --output runs/adapters
    python -m alphamed_jax.studies.adapters --output runs/adapters --table-only --docs docs

Four conditions, every one with each seed: all weights (full), and adapters of rank 1, 4 and 16 on
all linear layers. All else is the quickstart: 80 steps of 16 questions x 8 responses, the same
questions in the same order, the rate of the adapters `lora.learning_rate_factor` times that of the
full training. Held-out questions are asked before and after.

The output folder has a folder for each run (CONDITION-SEED), and, in the end, adapters.md and
adapters.svg. The same command goes on where it was stopped; finished runs stay as they are. One run
takes about a minute on two idle cores. docs/studies.md says what came out and how to read it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of, user_path
from alphamed_jax.studies.adapters_page import MEASURES, picture, tables
from alphamed_jax.studies.finished import gather, record_of
from alphamed_jax.studies.kept import read_kept
from alphamed_jax.studies.pages import keep, publish
from alphamed_jax.studies.plan import Run, check_seeds
from alphamed_jax.studies.work import train_all
from alphamed_jax.terminal.display import make_console

STUDY = "adapters"
STEPS = 80
"""Of the default configuration."""
RANKS = {"full": 0, "rank-1": 1, "rank-4": 4, "rank-16": 16}
"""Of each condition; 0: no adapters."""


@dataclass(frozen=True)
class Arguments:
    """Where the study lies, and how much of it is done."""

    output: str = "runs/adapters"
    """Folder of the study."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs."""
    steps: int = STEPS
    """Of each run."""
    table_only: bool = False
    """Train nothing: table and picture of the runs that are finished."""
    docs: str | None = None
    """Also put the table into DOCS/studies.md, between its marks, and the picture and the numbers
    (adapters.json) beside it. Runs that are not in the study's folder are taken from these."""

    def __post_init__(self):
        check_seeds(self.seeds)
        object.__setattr__(self, "output", user_path(self.output, "output"))


def runs_of(seeds: Sequence[int], steps: int = STEPS) -> list[Run]:
    """All runs, the first seed of every condition first."""
    return [
        Run(
            condition,
            seed,
            words=("--lora.rank", str(rank), "--steps", str(steps), "--seed", str(seed)),
            steps=steps,
        )
        for seed in seeds
        for condition, rank in RANKS.items()
    ]


def adapters(arguments: Arguments) -> None:
    """Train, and write table and picture."""
    console, output = make_console(), Path(arguments.output)
    runs = runs_of(arguments.seeds, arguments.steps)
    if not arguments.table_only:
        train_all(output, runs, console)
    docs = Path(arguments.docs) if arguments.docs is not None else None
    kept = read_kept(docs, STUDY)
    found = gather(output, runs, kept, MEASURES)
    text, drawn = tables(found, runs, RANKS), picture(found, runs)
    publish(STUDY, text, drawn, output, console)
    if docs is not None:
        records = {one.run.name: record_of(one) for one in found}
        keep(STUDY, text, drawn, kept | records, docs)


def main() -> None:
    cli.run("studies.adapters", adapters, flags_of(Arguments), __doc__)


if __name__ == "__main__":
    main()
