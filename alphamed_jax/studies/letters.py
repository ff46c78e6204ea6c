"""`python -m alphamed_jax.studies.letters`: what is learned with options shuffled, and without.

    python -m alphamed_jax.studies.letters --model HuggingFaceTB/SmolLM2-135M-Instruct \
--data medmcqa --output runs/letters
    python -m alphamed_jax.studies.letters --output runs/letters --table-only --docs docs

Two conditions, every one with each seed: shuffle (options are shuffled at each draw of a question)
and no-shuffle. All else is the same: 60 steps of 8 questions x 8 responses of at most 16 tokens,
learning rate 1e-5, questions of at most 160 tokens, and an instruction that asks for nothing but
the letter in a box.

The output folder has a folder for each run (CONDITION-SEED), and, in the end, letters.md and
letters.svg. The same command goes on where it was stopped; finished runs stay as they are. One run
takes some 10 minutes on two idle cores with a model of 135M parameters. docs/studies.md says what
came out and how to read it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of, user_path
from alphamed_jax.errors import UserError
from alphamed_jax.studies.finished import gather, record_of
from alphamed_jax.studies.kept import read_kept
from alphamed_jax.studies.letters_page import MEASURES, picture, tables
from alphamed_jax.studies.pages import keep, publish
from alphamed_jax.studies.plan import Run, check_seeds
from alphamed_jax.studies.work import train_all
from alphamed_jax.terminal.display import make_console

STUDY = "letters"
STEPS = 60
CONDITIONS = ("no-shuffle", "shuffle")
INSTRUCTION = (
    "Reply with the letter of the correct option in a box and nothing else, for example "
    "\\boxed{A} or \\boxed{C}."
)


@dataclass(frozen=True)
class Arguments:
    """What is trained on what, where the study lies, and how much of it is done."""

    model: str | None = None
    """Hugging Face folder or hub id of a small model that follows instructions."""
    data: tuple[str, ...] = ()
    """Questions as `alphamed train --data` takes them, as medmcqa or medmcqa=FILE."""
    output: str = "runs/letters"
    """Folder of the study."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs."""
    steps: int = STEPS
    """Of each run."""
    table_only: bool = False
    """Train nothing: table and picture of the runs that are finished."""
    results: str | None = None
    """Folder that letters.md and letters.svg are written to. null: that of the study."""
    docs: str | None = None
    """Also put the table into DOCS/studies.md, between its marks, and the picture and the numbers
    (letters.json) beside it. Runs that are not in the study's folder are taken from these."""

    def __post_init__(self):
        check_seeds(self.seeds)
        object.__setattr__(self, "output", user_path(self.output, "output"))
        if not self.table_only and (self.model is None or not self.data):
            raise UserError("--model and --data: name what is trained, and on what questions.")


def runs_of(model: str, data: Sequence[str], seeds: Sequence[int], steps: int = STEPS) -> list[Run]:
    """All runs, the first seed of both conditions first."""
    return [
        Run(
            condition,
            seed,
            words=(
                *("--model", model, "--data", *data),
                *("--rollout.prompts", "8", "--rollout.group-size", "8"),
                *("--rollout.max-new-tokens", "16", "--optimizer.learning-rate", "1e-5"),
                *("--steps", str(steps), "--prompt.max-tokens", "160"),
                *("--update.micro-batch", "16", "--update.remat", "none"),
                *("--prompt.instruction", INSTRUCTION, f"--prompt.{condition}-options"),
                *("--seed", str(seed)),
            ),
            steps=steps,
        )
        for seed in seeds
        for condition in CONDITIONS
    ]


def letters(arguments: Arguments) -> None:
    """Train, and write table and picture."""
    console, output = make_console(), Path(arguments.output)
    runs = runs_of(arguments.model or "", arguments.data, arguments.seeds, arguments.steps)
    if not arguments.table_only:
        train_all(output, runs, console)
    docs = Path(arguments.docs) if arguments.docs is not None else None
    kept = read_kept(docs, STUDY)
    found = gather(output, runs, kept, MEASURES)
    text, drawn = tables(found, runs), picture(found, runs)
    publish(STUDY, text, drawn, Path(arguments.results or output), console)
    if docs is not None:
        records = {one.run.name: record_of(one) for one in found}
        keep(STUDY, text, drawn, kept | records, docs)


def main() -> None:
    cli.run("studies.letters", letters, flags_of(Arguments), __doc__)


if __name__ == "__main__":
    main()
