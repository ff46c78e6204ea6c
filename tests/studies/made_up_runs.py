"""Folders of runs as far as studies read them, with numbers that are chosen."""

import json

from alphamed_jax.studies.plan import Run
from alphamed_jax.studies.work import COMMAND


def a_run(condition="shuffle", seed=0, steps=4, words=("--steps", "4")):
    return Run(condition, seed, words, steps)


def write_run(output, run, rows, evaluations=(), *, words=None):
    """A folder with metrics, evaluations and the record that a finished run leaves."""
    folder = run.folder(output)
    (folder / "eval").mkdir(parents=True)
    lines = [json.dumps({"step": i, **row}) + "\n" for i, row in enumerate(rows, 1)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    for evaluation in evaluations:
        path = folder / "eval" / f"step_{evaluation['step']:06d}.json"
        path.write_text(json.dumps(evaluation))
    command = f"{COMMAND}{' '.join(words or run.words)} --output {folder}"
    (folder / "run.json").write_text(json.dumps({"steps": run.steps, "command": command}))
    return folder
