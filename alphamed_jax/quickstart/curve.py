"""The curve of the README: several seeds of the quickstart in one picture and one table.

for seed in 0 1 2; do
  python -m alphamed_jax.train --seed $seed --output runs/seed$seed
done
python -m alphamed_jax.quickstart.curve runs/seed0 runs/seed1 runs/seed2
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of
from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import read_rows, write_atomically

PANELS = (
    ("reward/mean", "accuracy of the sampled responses", 1.0),
    ("groups/effective", "share of groups with mixed outcomes", 1.0),
    ("response_length/mean", "response length, tokens", 20.0),
)
WIDTH, HEIGHT, MARGIN = 260, 150, 34
COLORS = ("#0b6e99", "#c4631a", "#5a8f29", "#8d4fa8")


@dataclass(frozen=True)
class Arguments:
    """Draw the runs into an SVG and print the table of their evaluations."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Output folders of finished runs."""
    output: Path = Path("docs/quickstart.svg")


def panel(index: int, key: str, title: str, top: float, runs: list[list[dict]]) -> str:
    """One panel: a line per run, from 0 to `top`."""
    left, last = index * WIDTH + MARGIN, max(row["step"] for rows in runs for row in rows)
    width, height = WIDTH - MARGIN - 12, HEIGHT - 2 * MARGIN

    def point(row: dict) -> str:
        x = left + width * (row["step"] - 1) / max(last - 1, 1)
        return f"{x:.1f},{MARGIN + height * (1 - row[key] / top):.1f}"

    lines = "".join(
        f'<polyline fill="none" stroke="{COLORS[i % len(COLORS)]}" stroke-width="1.6" '
        f'points="{" ".join(point(row) for row in rows)}"/>'
        for i, rows in enumerate(runs)
    )
    bottom = MARGIN + height
    return (
        f'<text x="{left}" y="{MARGIN - 12}">{title}</text>'
        f'<path d="M{left},{MARGIN}V{bottom}H{left + width}" fill="none" stroke="#8888"/>'
        f'<text x="{left - 4}" y="{MARGIN + 4}" text-anchor="end">{top:g}</text>'
        f'<text x="{left - 4}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{left + width}" y="{bottom + 14}" text-anchor="end">step {last}</text>{lines}'
    )


def draw(runs: list[list[dict]]) -> str:
    """The picture of the rows of several metrics.jsonl, a colour for each."""
    panels = "".join(panel(i, *spec, runs) for i, spec in enumerate(PANELS))
    size = f'width="{WIDTH * len(PANELS)}" height="{HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11" '
        f'fill="#777">{panels}</svg>\n'
    )


def table(folders: tuple[Path, ...]) -> str:
    """Evaluations before and after, a row for each run, as Markdown."""
    head = "run | sampled accuracy | greedy accuracy | answers in steps | tokens | mixed groups"
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


def curve(arguments: Arguments) -> None:
    """Read, draw, print."""
    if not arguments.runs:
        raise UserError("name the output folders of finished runs.")
    for folder in arguments.runs:
        if len(list((folder / "eval").glob("step_*.json"))) < 2:
            raise UserError(f"{folder} is not a finished run: it has no two evaluations in eval/.")
    runs = [read_rows(folder / "metrics.jsonl") for folder in arguments.runs]
    write_atomically(arguments.output, draw(runs))
    print(table(arguments.runs))


def main() -> None:
    cli.run("quickstart.curve", curve, flags_of(Arguments), __doc__)


if __name__ == "__main__":
    main()
