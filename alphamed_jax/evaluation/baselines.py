"""`--baselines`: what a training run has brought, beside what its prompt alone brings.

Most of what reinforcement learning seems to bring on these benchmarks is the prompt's, so a trained
model is never compared with a base model that is asked in a weaker way: base model with the plain
prompt, base model with the training's prompt, trained model with that prompt.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from alphamed_jax.evaluation.compare import compare_folders
from alphamed_jax.evaluation.run import Evaluation, evaluate, folder_of, prepare
from alphamed_jax.evaluation.sets import QuestionSet
from alphamed_jax.evaluation.settings import Settings
from alphamed_jax.evaluation.subject import Subject, base_of
from alphamed_jax.runtime import distributed

BASE_PLAIN, BASE_PROMPT, TRAINED = "base-plain", "base-prompt", "trained"
"""Folders within that of the evaluation."""


def evaluate_baselines(
    settings: Settings, subject: Subject, sets: Sequence[QuestionSet], console: Console
) -> Path:
    """Evaluate the three, each as it goes on by itself, and compare them.

    A question whose prompt is too long in one of the ways is asked in none.

    Returns:
      The folder that holds the three and the comparison.

    Raises:
      UserError: the subject is not of a training run; see `evaluate`.
    """
    base, folder = base_of(subject), folder_of(settings, subject)
    parts = {
        part: (
            dataclasses.replace(
                settings,
                model=model.name,
                model_revision=None,
                prompt=prompt,
                output=str(folder / part),
                baselines=False,
            ),
            model,
        )
        for part, model, prompt in (
            (BASE_PLAIN, base, "plain"),
            (BASE_PROMPT, base, None),
            (TRAINED, subject, None),
        )
    }
    prepared = {part: prepare(*given, sets, part) for part, given in parts.items()}
    folders = []
    for part, given in parts.items():
        without = _asked_elsewhere_only(prepared, part)
        console.print(f"{part}: {given[1].name}", style="bold", markup=False)
        this = prepare(*given, sets, part, without) if any(without.values()) else prepared[part]
        folders.append(evaluate(this, console))
    if distributed.is_main():
        compare_folders(folders, folder)
    return folder


def _asked_elsewhere_only(prepared: Mapping[str, Evaluation], part: str) -> dict[str, set[str]]:
    """Of each set the ids that `part` asks and another part cannot ask."""
    ids = {
        name: [{prompt.question.id for prompt in asked.prompts} for asked in this.sets]
        for name, this in prepared.items()
    }
    return {
        asked.questions.name: mine - set.intersection(*(others[i] for others in ids.values()))
        for i, (asked, mine) in enumerate(zip(prepared[part].sets, ids[part], strict=True))
    }
