"""The curve of the README: several seeds of the quickstart in one picture and one table.

for seed in 0 1 2; do
  python -m alphamed_jax.train --seed $seed --output runs/seed$seed
done
python -m alphamed_jax.quickstart.curve runs/seed0 runs/seed1 runs/seed2
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of
from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import read_rows, write_atomically
from alphamed_jax.reporting.charts import Series, line_chart
from alphamed_jax.reporting.standing import COLOURS, Panel, standing_svg

PANELS = (
    ("reward/mean", "accuracy of the sampled responses", 1.0),
    ("groups/effective", "share of effective groups", 1.0),
    ("response_length/mean", "response length, tokens", 20.0),
)
HEIGHT = 220


@dataclass(frozen=True)
class Arguments:
    """Draw the runs into an SVG and print the table of their evaluations."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Output folders of finished runs."""
    output: Path = Path("docs/quickstart.svg")


def draw(runs: list[list[dict]]) -> str:
    """The picture of the rows of several metrics.jsonl, a colour for each."""
    panels = []
    for key, title, top in PANELS:
        series = [Series("", [row[key] for row in rows], i + 1) for i, rows in enumerate(runs)]
        steps = [row["step"] for row in runs[0]]
        chart = line_chart(
            steps, series, height=HEIGHT, limits=(0.0, top), smooth=False, tooltips=False
        )
        panels.append(Panel(title, chart, HEIGHT))
    return standing_svg(panels, len(runs))


def table(folders: tuple[Path, ...]) -> str:
    """Evaluations before and after, a row for each run, as Markdown."""
    head = "run | sampled accuracy | greedy accuracy | answers in steps | tokens | effective groups"
    lines = [f"| {head} |", "|" + "---|" * 6]
    for folder in folders:
        paths = sorted((folder / "eval").glob("step_*.json"))
        before, after = (json.loads(path.read_text("utf-8")) for path in (paths[0], paths[-1]))
        rows = read_rows(folder / "metrics.jsonl")
        ends = [sum(r["groups/effective"] for r in part) / 5 for part in (rows[:5], rows[-5:])]

        def change(way: str, key: str, form: str = ".2f", b=before, a=after) -> str:
            return f"{b[way][key]:{form}} → {a[way][key]:{form}}"

        cells = (
            folder.name,
            change("sampled", "accuracy"),
            change("greedy", "accuracy"),
            change("sampled", "steps_share"),
            change("sampled", "length_mean", ".1f"),
            f"{ends[0]:.2f} → {ends[1]:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def check_runs(folders: Sequence[Path], runs: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Refuse runs that do not go into one picture.

    Raises:
      UserError: more of them than colours, no steps, or other steps than those of the first.
    """
    if len(runs) > len(COLOURS):
        raise UserError(f"{len(runs)} runs: there are colours for {len(COLOURS)} in one picture.")
    first, *_ = runs
    for folder, rows in zip(folders, runs, strict=True):
        if not rows:
            raise UserError(f"{folder}: metrics.jsonl holds no steps.")
        if [row["step"] for row in rows] != [row["step"] for row in first]:
            raise UserError(
                f"{folder} has {len(rows)} steps, up to {rows[-1]['step']}, {folders[0]} has "
                f"{len(first)}, up to {first[-1]['step']}: draw runs of the same steps."
            )


def curve(arguments: Arguments) -> None:
    """Read, draw, print."""
    if not arguments.runs:
        raise UserError("name the output folders of finished runs.")
    for folder in arguments.runs:
        if len(list((folder / "eval").glob("step_*.json"))) < 2:
            raise UserError(f"{folder} is not a finished run: it has no two evaluations in eval/.")
    runs = [read_rows(folder / "metrics.jsonl") for folder in arguments.runs]
    check_runs(arguments.runs, runs)
    write_atomically(arguments.output, draw(runs))
    print(table(arguments.runs))


def main() -> None:
    cli.run("quickstart.curve", curve, flags_of(Arguments), __doc__)


if __name__ == "__main__":
    main()
