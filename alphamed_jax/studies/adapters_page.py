"""Table and picture of runs with adapters of several ranks, and with all weights."""

from collections.abc import Mapping, Sequence

import numpy as np

from alphamed_jax.config import LoraConfig
from alphamed_jax.intervals import t_interval
from alphamed_jax.model import hf, lora
from alphamed_jax.model.network import count_parameters
from alphamed_jax.reporting.charts import Series, line_chart
from alphamed_jax.reporting.standing import Panel, standing_svg
from alphamed_jax.studies.finished import ENDS, WAYS, Finished, Measures, missing
from alphamed_jax.studies.pages import markdown_table, signed
from alphamed_jax.studies.plan import Run

PANELS = {
    "reward/mean": ("accuracy of the sampled responses", 1.0),
    "groups/effective": ("share of effective groups", 1.0),
    "response_length/mean": ("response length, tokens", 20.0),
}
MEASURES = Measures(metrics=tuple(PANELS), evaluation=("questions",), answers=("accuracy",))
LEARNT = 0.9
"""Accuracy of the sampled responses from which on the habit is taken to be learnt."""
FULL = "full"
HEIGHT = 220


def tables(found: Sequence[Finished], runs: Sequence[Run], ranks: Mapping[str, int]) -> str:
    """All tables, as Markdown.

    Args:
      runs: all of the study; those that are not finished are named.
      ranks: of the adapters in each condition; 0: all weights learn.
    """
    parts = [missing(found, runs), _conditions(found, ranks), _differences(found)]
    return "\n".join(part for part in parts if part)


def learning_parameters(rank: int) -> int:
    """Numbers of the quickstart's model that learn."""
    model = hf.inspect(hf.locate("quickstart"))
    return lora.count_parameters(model, LoraConfig(rank=rank)) if rank else count_parameters(model)


def first_learnt(one: Finished) -> int | None:
    """The first step from which on ten in a row are above `LEARNT` on average."""
    rewards = np.array([row["reward/mean"] for row in one.rows])
    means = np.convolve(rewards, np.full(ENDS, 1 / ENDS), "valid")
    above = np.flatnonzero(means > LEARNT)
    return int(above[0]) + 1 if len(above) else None


def _conditions(found: Sequence[Finished], ranks: Mapping[str, int]) -> str:
    head = ("what learns", "numbers", "greedy before", "greedy after, each seed", "sampled before")
    head = (*head, "sampled after, each seed", f"above {LEARNT} from step", "tokens of the last")
    rows = []
    for condition, rank in ranks.items():
        ours = [one for one in found if one.run.condition == condition]
        if not ours:
            continue
        cells = []
        for way in WAYS:
            cells.append(f"{np.mean([one.before[way]['accuracy'] for one in ours]):.3f}")
            cells.append(" ".join(f"{one.after[way]['accuracy']:.3f}" for one in ours))
        steps = " ".join(str(first_learnt(one) or "–") for one in ours)
        lengths = " ".join(f"{one.ends('response_length/mean')[1]:.1f}" for one in ours)
        rows.append((condition, f"{learning_parameters(rank):,}", *cells, steps, lengths))
    questions = found[0].after["questions"]
    return (
        f"Accuracy on the {questions} held-out questions; the step from which on {ENDS} in a row "
        f"have a mean reward above {LEARNT}; and the mean length of the responses of the last "
        f"{ENDS} steps:\n\n" + markdown_table(head, rows)
    )


def _differences(found: Sequence[Finished]) -> str:
    """Held-out accuracy after training, adapters less all weights, paired by seed."""
    after = {(one.run.condition, one.run.seed): one.after for one in found}
    rows = []
    for condition in dict.fromkeys(one.run.condition for one in found):
        pairs = [
            (here, after[FULL, seed])
            for (name, seed), here in after.items()
            if name == condition != FULL and (FULL, seed) in after
        ]
        if len(pairs) < 2:
            continue
        cells = []
        for way in WAYS:
            each = [a[way]["accuracy"] - b[way]["accuracy"] for a, b in pairs]
            cells.append(signed(float(np.mean(each)), t_interval(each)))
        rows.append((f"{condition} less {FULL}", *cells))
    if not rows:
        return ""
    head = ("difference", *WAYS)
    return "Differences after training, mean and t interval over the seeds:\n\n" + (
        markdown_table(head, rows)
    )


def picture(found: Sequence[Finished], runs: Sequence[Run]) -> str:
    """Training step by step: a panel for each metric, a line for each run, a colour a condition."""
    steps = [row["step"] for row in found[0].rows]
    names = list(dict.fromkeys(run.condition for run in runs))
    panels = []
    for key, (title, top) in PANELS.items():
        series = [
            Series(one.run.name, [row[key] for row in one.rows], names.index(one.run.condition) + 1)
            for one in found
        ]
        chart = line_chart(steps, series, height=HEIGHT, limits=(0.0, top), tooltips=False)
        panels.append(Panel(title, chart, HEIGHT))
    return standing_svg(panels, len(names), names)
