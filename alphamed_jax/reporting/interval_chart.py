"""Shares with their intervals, one below the other, as inline SVG in the style of `charts`."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from alphamed_jax.reporting.charts import WIDTH, ticks
from alphamed_jax.text import number, shorten_middle, visible

LEFT, RIGHT, TOP, ROW, BOTTOM = 190, 14, 6, 22, 22
LONGEST_NAME = 34


@dataclass(frozen=True)
class Measured:
    """A share, how far it may be off, and what it is to be seen against."""

    name: str
    share: float
    interval: tuple[float, float]
    baseline: float | None = None


def interval_chart(rows: Sequence[Measured], *, label: str = "") -> str:
    """Draw a dot with its interval for each row, and a short bar at its baseline.

    Args:
      label: read out by screen readers.
    """
    height = TOP + ROW * len(rows) + BOTTOM

    def x(share: float) -> str:
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"

    drawn = []
    for value in ticks(0.0, 1.0):
        at = x(value)
        drawn.append(
            f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{height - BOTTOM}"/>'
            f'<text class="x" x="{at}" y="{height - 6}">{number(value)}</text>'
        )
    for index, row in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        low, high = row.interval
        said = f"{row.name}: {row.share:.3f}, 95 % interval {low:.3f} to {high:.3f}"
        name = shorten_middle(visible(row.name), LONGEST_NAME)
        drawn.append(f'<text class="y" x="{LEFT - 10}" y="{y:.1f}">{escape(name)}</text>')
        if row.baseline is not None:
            at = x(row.baseline)
            drawn.append(f'<polyline class="line c3" points="{at},{y - 7:.1f} {at},{y + 7:.1f}"/>')
            said += f", baseline {row.baseline:.3f}"
        drawn.append(
            f'<polyline class="line c1" points="{x(low)},{y:.1f} {x(high)},{y:.1f}"/>'
            f'<circle class="c1" cx="{x(row.share)}" cy="{y:.1f}" r="3.5"/>'
            f'<rect class="tip" x="{LEFT}" y="{y - ROW / 2:.1f}" width="{WIDTH - LEFT - RIGHT}" '
            f'height="{ROW}"><title>{escape(visible(said))}</title></rect>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        + "".join(drawn)
        + "</svg>"
    )
