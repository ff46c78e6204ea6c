"""Numbers with their intervals, one below the other, as inline SVG in the style of `charts`."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from alphamed_jax.reporting.charts import WIDTH, ticks
from alphamed_jax.text import number, shorten_middle, visible

LEFT, RIGHT, TOP, ROW, BOTTOM = 190, 14, 6, 22, 22
LONGEST_NAME = 34


@dataclass(frozen=True)
class Measured:
    """A number, how far it may be off, and what it is to be seen against."""

    name: str
    share: float
    """A share, or a difference of shares."""
    interval: tuple[float, float]
    baseline: float | None = None
    parts: tuple[float, ...] = ()
    """What it is the mean of, as of several seeds."""


def chart_height(rows: int) -> int:
    """Of a chart of so many rows."""
    return TOP + ROW * rows + BOTTOM


def interval_chart(
    rows: Sequence[Measured], *, limits: tuple[float, float] = (0.0, 1.0), label: str = ""
) -> str:
    """Draw a dot with its interval for each row, its parts faintly, and a bar at its baseline.

    Args:
      limits: lowest and highest value of the axis.
      label: read out by screen readers.

    Raises:
      ValueError: the second limit is not above the first.
    """
    height = chart_height(len(rows))
    low_end, high_end = limits

    def x(share: float) -> str:
        place = (share - low_end) / (high_end - low_end)
        return f"{LEFT + place * (WIDTH - LEFT - RIGHT):.1f}"

    drawn = []
    for value in ticks(*limits):
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
        drawn += [
            f'<circle class="raw c2" cx="{x(part)}" cy="{y:.1f}" r="2.5"/>' for part in row.parts
        ]
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
