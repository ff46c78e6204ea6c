"""The finished runs of a study: what of their metrics and evaluations its tables are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import read_evaluations, read_rows
from alphamed_jax.studies.kept import Kept, kept_run, words_of
from alphamed_jax.studies.plan import Run

ENDS = 10
"""Steps at the beginning and at the end that a number is the mean of."""
WAYS = ("greedy", "sampled")


@dataclass(frozen=True)
class Measures:
    """What a study takes of a run."""

    metrics: tuple[str, ...]
    """Of each step."""
    evaluation: tuple[str, ...]
    """Of each evaluation."""
    answers: tuple[str, ...]
    """Of each way to answer (`WAYS`) in an evaluation."""

    def of(self, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """What is taken of an evaluation."""
        of_ways = {way: {key: evaluation[way][key] for key in self.answers} for way in WAYS}
        return {key: evaluation[key] for key in self.evaluation} | of_ways


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    run: Run
    rows: list[dict[str, Any]]
    """Number and metrics of each step."""
    before: dict[str, Any]
    """Evaluation before the first step."""
    after: dict[str, Any]
    """Evaluation after the last."""

    def ends(self, key: str) -> tuple[float, float]:
        """Mean of a metric over the first and the last steps, of those that have a value."""
        return _known_mean(self.rows[:ENDS], key), _known_mean(self.rows[-ENDS:], key)


def _known_mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    known = [row[key] for row in rows if row[key] is not None]
    return float(np.mean(known)) if known else float("nan")


def read_finished(run: Run, folder: Path, measures: Measures) -> Finished | None:
    """Read a run; None where it lacks steps, or the evaluation before or after them.

    Raises:
      UserError: one of its files cannot be read.
    """
    rows = read_rows(folder / "metrics.jsonl")
    evaluations = {one["step"]: one for one in read_evaluations(folder)}
    if not rows or rows[-1]["step"] != run.steps or not {0, run.steps} <= evaluations.keys():
        return None
    rows = [{key: row[key] for key in ("step", *measures.metrics)} for row in rows]
    before, after = (measures.of(evaluations[step]) for step in (0, run.steps))
    return Finished(run, rows, before, after)


def gather(output: Path, runs: Sequence[Run], kept: Kept, measures: Measures) -> list[Finished]:
    """The finished runs, from their folders, else from what is kept of them.

    Raises:
      UserError: there is none, a file cannot be read, or another run was kept.
    """
    found = []
    for run in runs:
        if (one := read_finished(run, run.folder(output), measures)) is not None:
            found.append(one)
        elif (record := kept_run(kept, run)) is not None:
            found.append(of_record(run, record))
    if not found:
        raise UserError(f"{output}: no finished run of this study; start it without --table-only.")
    return found


def record_of(one: Finished) -> dict[str, Any]:
    """What is kept of a run."""
    names = [key for key in one.rows[0] if key != "step"]
    return {
        "words": words_of(one.run),
        "before": one.before,
        "after": one.after,
        "metrics": {key: [row[key] for row in one.rows] for key in names},
    }


def of_record(run: Run, record: Mapping[str, Any]) -> Finished:
    """A run from what is kept of it."""
    names, columns = ("step", *record["metrics"]), zip(*record["metrics"].values(), strict=True)
    rows = [dict(zip(names, (i, *row), strict=True)) for i, row in enumerate(columns, 1)]
    return Finished(run, rows, record["before"], record["after"])


def missing(found: Sequence[Finished], runs: Sequence[Run]) -> str:
    """A line that names the runs of the study that are not finished; empty where all are."""
    done = {one.run.name for one in found}
    names = [run.name for run in runs if run.name not in done]
    return f"Not there yet: {', '.join(names)}.\n" if names else ""
