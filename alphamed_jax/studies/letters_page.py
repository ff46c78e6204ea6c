"""Table and picture of runs with and without shuffled options."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alphamed_jax.intervals import t_interval, wilson_interval
from alphamed_jax.output.messages import collapsed
from alphamed_jax.reporting.charts import Series, line_chart
from alphamed_jax.reporting.standing import Panel, standing_svg
from alphamed_jax.studies.finished import ENDS, WAYS, Finished, Measures, missing
from alphamed_jax.studies.pages import markdown_table, signed
from alphamed_jax.studies.plan import Run

PANELS = {
    "reward/mean": "reward: share of right responses",
    "answers/baseline": "share of the most frequent key",
    "answers/most_frequent": "share of the most frequent answer",
}
MEASURES = Measures(
    metrics=(*PANELS, "reward/no_answer"),
    evaluation=("questions", "baseline"),
    answers=("accuracy", "no_answer", "most_frequent"),
)
HEIGHT = 220


def tables(found: Sequence[Finished], runs: Sequence[Run]) -> str:
    """All tables, as Markdown.

    Args:
      runs: all of the study; those that are not finished are named.
    """
    parts = [missing(found, runs), _evaluations(found), _training(found), _differences(found)]
    return "\n".join(part for part in parts if part)


def _evaluations(found: Sequence[Finished]) -> str:
    """Held-out accuracy before and after."""
    head = ("run", "questions", "always one letter", "greedy before", "greedy after")
    head = (*head, "sampled before", "sampled after", "no answer, sampled", "one letter, sampled")
    rows = []
    for one in _sorted(found):
        cells = [
            _accuracy(evaluation, way) for way in WAYS for evaluation in (one.before, one.after)
        ]
        shares = [
            f"{_shown(one.before['sampled'][key])} → {_shown(one.after['sampled'][key])}"
            for key in ("no_answer", "most_frequent")
        ]
        asked = (str(one.after["questions"]), _shown(one.after["baseline"]))
        rows.append((one.run.name, *asked, *cells, *shares))
    return (
        "Accuracy on the held-out questions, with Wilson's 95 % interval; beside it what "
        "always answering the most frequent key would give, and the share of the most frequent "
        "letter among the answers:\n\n" + markdown_table(head, rows)
    )


def _accuracy(evaluation: Mapping[str, Any], way: str) -> str:
    """Held-out accuracy with its interval over questions: samples of one are no questions."""
    share = float(evaluation[way]["accuracy"])
    low, high = wilson_interval(share, evaluation["questions"])
    return f"{share:.2f} ({low:.2f} to {high:.2f})"


def _training(found: Sequence[Finished]) -> str:
    """What the metrics of the training steps say."""
    head = ("run", "reward", "share of the most frequent key", "no answer")
    head = (*head, "share of the most frequent answer", "steps that warn of a collapse")
    keys = ("reward/mean", "answers/baseline", "reward/no_answer", "answers/most_frequent")
    rows = []
    for one in _sorted(found):
        cells = [" → ".join(map(_shown, one.ends(key))) for key in keys]
        warned = [row["step"] for row in one.rows if collapsed(row)]
        said = f"{len(warned)} of {len(one.rows)}"
        rows.append((one.run.name, *cells, said + (f", first {warned[0]}" if warned else "")))
    return f"Training, mean of the first {ENDS} steps → of the last {ENDS}:\n\n" + (
        markdown_table(head, rows)
    )


def _differences(found: Sequence[Finished]) -> str:
    """Held-out accuracy after training, shuffled less not shuffled, paired by seed."""
    after: dict[str, dict[int, Mapping[str, Any]]] = {}
    for one in found:
        after.setdefault(one.run.condition, {})[one.run.seed] = one.after
    shuffled, plain = after.get("shuffle", {}), after.get("no-shuffle", {})
    seeds = sorted(shuffled.keys() & plain.keys())
    if len(seeds) < 2:
        return ""
    rows = []
    for way in WAYS:
        each = [shuffled[s][way]["accuracy"] - plain[s][way]["accuracy"] for s in seeds]
        values = " ".join(f"{value:+.3f}" for value in each)
        rows.append((way, values, signed(float(np.mean(each)), t_interval(each))))
    head = ("shuffle less no-shuffle", "each seed", "mean, 95 % interval")
    return "Held-out accuracy after training, t interval over the seeds:\n\n" + (
        markdown_table(head, rows)
    )


def _sorted(found: Sequence[Finished]) -> list[Finished]:
    return sorted(found, key=lambda one: (one.run.condition, one.run.seed))


def _shown(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.2f}"


def picture(found: Sequence[Finished], runs: Sequence[Run]) -> str:
    """Training step by step: a panel for each metric, a line for each run, a colour a condition."""
    steps = [row["step"] for row in found[0].rows]
    names = list(dict.fromkeys(run.condition for run in runs))
    panels = []
    for key, title in PANELS.items():
        series = [
            Series(one.run.name, [row[key] for row in one.rows], names.index(one.run.condition) + 1)
            for one in found
        ]
        chart = line_chart(steps, series, height=HEIGHT, limits=(0.0, 1.0), tooltips=False)
        panels.append(Panel(title, chart, HEIGHT))
    return standing_svg(panels, len(names), names)
