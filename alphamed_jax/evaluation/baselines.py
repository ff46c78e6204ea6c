"""`--baselines`: what a training run has brought, beside what its prompt alone brings.

Most of what reinforcement learning seems to bring on these benchmarks is the prompt's, so a trained
model is never compared with a base model that is asked in a weaker way: base model with the plain
prompt, base model with the training's prompt, trained model with that prompt.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from alphamed_jax.evaluation.run import evaluate, folder_of
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

    Returns:
      The folder that holds the three and the comparison.

    Raises:
      UserError: the subject is not of a training run; see `evaluate`.
    """
    base, folder = base_of(subject), folder_of(settings, subject)
    folders = []
    for part, model, prompt in (
        (BASE_PLAIN, base, "plain"),
        (BASE_PROMPT, base, None),
        (TRAINED, subject, None),
    ):
        console.print(f"{part}: {model.name}", style="bold", markup=False)
        given = dataclasses.replace(
            settings, model=model.name, prompt=prompt, output=str(folder / part), baselines=False
        )
        folders.append(evaluate(given, model, sets, console, part))
    if distributed.is_main():
        importlib.import_module("alphamed_jax.evaluation.compare").compare_folders(folders, folder)
    return folder
