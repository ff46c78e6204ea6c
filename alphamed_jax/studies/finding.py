"""`python -m alphamed_jax.studies.finding`: which questions teach the quickstart model how much.

    python -m alphamed_jax.studies.finding --output runs/finding
    python -m alphamed_jax.studies.finding --output runs/finding --table-only --docs docs

Ten training sets of the quickstart's questions, each trained on with the default configuration and
the same budget, every one with each seed; then all models answer the 240 held-out questions.

    hops        one-hop, multi-hop, all-hops: 336 questions each
    labels      labels-right, labels-10-wrong, labels-30-wrong: 1,344 questions each
    difficulty  easy, middle, hard, mixed: 64 questions each, by `alphamed curate score` and `pick`

The output folder has a folder for each run (CONDITION-SEED), the sets it was trained on (sets/),
what the models answered (answers/), and, in the end, finding.md and finding.svg. The same command
goes on where it was stopped; finished runs stay as they are. One run takes about a minute on two
idle cores. docs/studies.md says what came out and how to read it.
"""

from dataclasses import dataclass
from pathlib import Path

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of, user_path
from alphamed_jax.studies.finding_page import gather, picture, records_of, tables
from alphamed_jax.studies.finding_runs import STEPS, ask_base, ask_trained, make_sets, runs_of
from alphamed_jax.studies.kept import read_kept
from alphamed_jax.studies.pages import keep, publish
from alphamed_jax.studies.plan import check_seeds
from alphamed_jax.studies.work import train_all
from alphamed_jax.terminal.display import make_console

STUDY = "finding"


@dataclass(frozen=True)
class Arguments:
    """Where the study lies, and how much of it is done."""

    output: str = "runs/finding"
    """Folder of the study."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs; each draws its own questions and wrong labels, too."""
    steps: int = STEPS
    """Of each run."""
    table_only: bool = False
    """Train nothing: table and picture of the runs that are finished."""
    docs: str | None = None
    """Also put the table into DOCS/studies.md, between its marks, and the picture and the numbers
    (finding.json) beside it. Runs that are not in the study's folder are taken from these."""

    def __post_init__(self):
        check_seeds(self.seeds)
        object.__setattr__(self, "output", str(Path(user_path(self.output, "output")).absolute()))


def finding(arguments: Arguments) -> None:
    """Train, ask, and write table and picture."""
    console, output = make_console(), Path(arguments.output)
    runs = runs_of(output, arguments.seeds, arguments.steps)
    if not arguments.table_only:
        make_sets(output, arguments.seeds, console)
        ask_base(output, console)
        train_all(output, runs, console, lambda run: ask_trained(output, run, console))
    docs = Path(arguments.docs) if arguments.docs is not None else None
    kept = read_kept(docs, STUDY)
    found = gather(output, runs, kept)
    text, drawn = tables(found, runs), picture(found.answered)
    publish(STUDY, text, drawn, output, console)
    if docs is not None:
        keep(STUDY, text, drawn, kept | records_of(found, runs), docs)


def main() -> None:
    cli.run("studies.finding", finding, flags_of(Arguments), __doc__)


if __name__ == "__main__":
    main()
