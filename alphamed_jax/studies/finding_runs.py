"""The runs of the finding in miniature: their training sets, their words, and who is asked."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from alphamed_jax.curation.manifest import manifest_path
from alphamed_jax.studies.asking import ask, asked
from alphamed_jax.studies.plan import Run
from alphamed_jax.studies.sets import MULTI_HOP, ONE_HOP, of_kinds, with_wrong_labels, write_set
from alphamed_jax.studies.work import start

STEPS = 80
"""Of the default configuration."""
LEVELS = {"easy": "L2", "middle": "L4", "hard": "L5", "mixed": "L2-L5"}
SCORED, AT_A_LEVEL = 8, 64
"""Responses that difficulty is told by, and questions of each set: the hardest level that holds
any has 68, and 64 are four levels of 16."""
COMPARISONS: dict[str, tuple[str, ...]] = {
    "hops": ("all-hops", "one-hop", "multi-hop"),
    "labels": ("labels-right", "labels-10-wrong", "labels-30-wrong"),
    "difficulty": ("mixed", "easy", "middle", "hard"),
}
"""What is compared: the first condition with each of the others."""
BASE = "base-0"
"""The model before training, asked with the noise of seed 0."""


def set_path(output: Path, condition: str, seed: int) -> Path:
    """The training set of a run."""
    return output / "sets" / f"{condition}-{seed}.jsonl"


def runs_of(output: Path, seeds: Sequence[int], steps: int = STEPS) -> list[Run]:
    """All runs, the first seed of every condition first."""
    conditions = [name for names in COMPARISONS.values() for name in names]
    return [
        Run(
            condition,
            seed,
            words=(
                *("--data", str(set_path(output, condition, seed))),
                # The held-out questions are those of the package; they are asked afterwards.
                *("--eval.questions", "0", "--eval.best", "none"),
                *("--steps", str(steps), "--seed", str(seed)),
            ),
            steps=steps,
        )
        for seed in seeds
        for condition in conditions
    ]


def make_sets(output: Path, seeds: Sequence[int], console: Console) -> None:
    """Write the training sets that are not there.

    Raises:
      UserError: scoring or picking failed.
    """
    for seed in seeds:
        made = {
            "one-hop": lambda seed=seed: of_kinds(ONE_HOP, seed),
            "multi-hop": lambda seed=seed: of_kinds(MULTI_HOP, seed),
            "all-hops": lambda seed=seed: of_kinds((*ONE_HOP, *MULTI_HOP), seed),
            "labels-right": lambda seed=seed: with_wrong_labels(0, seed),
            "labels-10-wrong": lambda seed=seed: with_wrong_labels(10, seed),
            "labels-30-wrong": lambda seed=seed: with_wrong_labels(30, seed),
        }
        for condition, make in made.items():
            if not (path := set_path(output, condition, seed)).is_file():
                write_set(path, make())
    scores = scores_folder(output)
    if not (scores / "scores.json").is_file():
        console.print(f"{scores}: the base model answers each training question {SCORED} times")
        words = ("curate", "score", "--model", "quickstart", "--data", "quickstart")
        start((*words, "--samples", str(SCORED), "--output", str(scores)), scores, lambda: None)
    for seed in seeds:
        for condition, levels in LEVELS.items():
            path = set_path(output, condition, seed)
            if manifest_path(path).is_file():
                continue
            each = AT_A_LEVEL // 4 if condition == "mixed" else AT_A_LEVEL
            words = ("curate", "pick", "--scores", str(scores), "--levels", levels)
            words = (*words, "--per-level", str(each), "--seed", str(seed), "--output", str(path))
            start(words, path.with_suffix(""), lambda: None)


def scores_folder(output: Path) -> Path:
    """Where the scores of the training questions lie."""
    return output / "scores"


def answers_folder(output: Path, name: str) -> Path:
    """Where the answers of a run's model lie."""
    return output / "answers" / name


def ask_base(output: Path, console: Console) -> None:
    """Ask the model before training, if it was not asked yet.

    Raises:
      UserError: see `ask`.
    """
    if not asked(folder := answers_folder(output, BASE)):
        console.print(f"{folder}: the base model is asked")
        ask("quickstart", 0, folder)


def ask_trained(output: Path, run: Run, console: Console) -> None:
    """Ask the model of a finished run, if it was not asked yet.

    Raises:
      UserError: see `ask`.
    """
    if not asked(folder := answers_folder(output, run.name)):
        console.print(f"{folder}: the trained model is asked")
        ask(str(run.folder(output)), run.seed, folder)
