"""`python -m alphamed_jax.evaluate`: accuracy on the medical benchmarks, and what qualifies it.

    alphamed evaluate --model runs/quickstart --benchmarks quickstart
    alphamed evaluate --model Qwen/Qwen2.5-7B-Instruct --benchmarks medqa,medmcqa,pubmedqa,\
mmlu-pro-medical,gpqa-medical,medxpertqa
    alphamed evaluate --model FOLDER --benchmarks medqa --limit 200 --prompt plain
    alphamed evaluate --model FOLDER --data medqa=test.jsonl --samples 8 --temperature 0.6
    alphamed evaluate --model runs/quickstart --benchmarks quickstart --baselines
    alphamed evaluate --model BASE --adapter runs/NAME/adapter --benchmarks medqa
    alphamed evaluate --responses FILE --data NAME=FILE
    alphamed evaluate rescore DIR --rule RULE
    alphamed evaluate compare DIR DIR

Greedy by default. Benchmarks come from the hub, or by --data from files with the same rows; a file
in our own schema has a name of its own. The output folder holds results.json, results.md,
report.html and every response; the same command again goes on where it was stopped, at any moment.
`rescore` reads the stored responses by another rule; `compare` tells whether two models differ on
the same questions. docs/evaluation.md has all of it in words.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of
from alphamed_jax.errors import UserError, nearest
from alphamed_jax.evaluation import settings as flags
from alphamed_jax.evaluation.baselines import evaluate_baselines
from alphamed_jax.evaluation.changes import changed_sets
from alphamed_jax.evaluation.foreign import score_foreign
from alphamed_jax.evaluation.load import load_benchmarks
from alphamed_jax.evaluation.run import evaluate, prepare
from alphamed_jax.evaluation.sets import QuestionSet
from alphamed_jax.evaluation.settings import Settings
from alphamed_jax.evaluation.shown import show_results
from alphamed_jax.evaluation.subject import beside, find_subject
from alphamed_jax.evaluation.together import joined
from alphamed_jax.terminal.display import make_console

ON_RESULTS = ("rescore", "compare")
"""What is done with folders of results: by modules of `evaluation` that hold their arguments."""


def question_sets(settings: Settings) -> tuple[QuestionSet, ...]:
    """The questions that are asked for, changed forms behind the benchmarks."""
    sets = load_benchmarks(
        settings.benchmarks,
        settings.data,
        limit=settings.limit,
        seed=settings.seed,
        revisions=settings.revisions,
    )
    return (*sets, *changed_sets(sets, settings.variants, settings.seed))


def ask_a_model(settings: Settings, console: Console) -> None:
    """Evaluate a model, or with --baselines three, and show the results."""
    assert settings.model is not None
    subject = beside(find_subject(settings.model, settings.model_revision), settings.adapter)
    sets = question_sets(settings)
    if settings.baselines:
        evaluate_baselines(settings, subject, sets, console)
    else:
        evaluate(prepare(settings, subject, sets), console)


def score_responses(settings: Settings, console: Console) -> None:
    """Score responses that were made elsewhere; needs no devices."""
    assert settings.responses is not None
    responses = Path(settings.responses)
    output = Path(settings.output) if settings.output else Path("evaluations") / responses.stem
    results = score_foreign(
        responses, settings.data, output, settings.rule, published=settings.published
    )
    show_results(console, results, output, published=settings.published)


def start(settings: Settings) -> None:
    """Join the other processes, then evaluate."""
    if settings.responses:
        score_responses(settings, make_console())
        return
    with joined(settings) as console:
        ask_a_model(settings, console)


def read(argv: Sequence[str], program: str, description: str) -> Settings:
    """Read the command line of an evaluation.

    Raises:
      UserError: as `settings.parse`; a first word that is none of `ON_RESULTS`.
    """
    if argv and not argv[0].startswith("-"):
        raise UserError(
            f"unknown argument {argv[0]!r}.{nearest(argv[0], ON_RESULTS)} After evaluate come "
            f"flags, or {' or '.join(ON_RESULTS)}."
        )
    return flags.parse(argv, program, description)


def main() -> None:
    if (name := sys.argv[1] if sys.argv[1:] else "") in ON_RESULTS:
        module = importlib.import_module(f"alphamed_jax.evaluation.{name}")
        sys.argv = [f"{sys.argv[0]} {name}", *sys.argv[2:]]
        command, arguments = getattr(module, name), flags_of(module.Arguments)
        cli.run(f"evaluate {name}", command, arguments, module.__doc__)
    else:
        cli.run("evaluate", start, read, __doc__)


if __name__ == "__main__":
    main()
