"""Bars side by side, as of a histogram, as inline SVG in the style of `charts`."""

from collections.abc import Sequence
from html import escape

from alphamed_jax.reporting.charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH, ticks, value_limits
from alphamed_jax.text import number, visible

GAP = 0.15
"""Share of a bar's place that is left free."""
MOST_NAMES = 10
"""So many bars have their names below; of more, every second or third has."""


def bar_chart(
    names: Sequence[str],
    values: Sequence[float | int],
    *,
    height: int = 150,
    color: int = 1,
    label: str = "",
) -> str:
    """Draw one bar a value, its name below and its number where the mouse rests.

    Args:
      names: of the bars, from left to right.
      values: at least 0.
      label: read out by screen readers.

    Raises:
      ValueError: not one name a value.
    """
    if len(names) != len(values):
        raise ValueError(f"{len(names)} names for {len(values)} bars")
    _, high = value_limits([[float(value) for value in values]], robust=False)
    place = (WIDTH - LEFT - RIGHT) / max(len(values), 1)
    floor = height - BOTTOM

    def y(value: float) -> float:
        return floor - value / high * (floor - TOP)

    drawn = []
    for value in ticks(0.0, high):
        at = f"{y(value):.1f}"
        drawn.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>'
            f'<text class="y" x="{LEFT - 6}" y="{at}">{number(value)}</text>'
        )
    every = -(-len(names) // MOST_NAMES)
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        left = LEFT + (index + GAP / 2) * place
        right, top = left + (1 - GAP) * place, y(float(value))
        corners = (
            f"{left:.1f},{floor} {left:.1f},{top:.1f} {right:.1f},{top:.1f} {right:.1f},{floor}"
        )
        drawn.append(f'<polygon class="c{color}" points="{corners}"/>')
        if index % every == 0:
            middle = (left + right) / 2
            shown = escape(visible(name))
            drawn.append(f'<text class="x" x="{middle:.1f}" y="{height - 6}">{shown}</text>')
        drawn.append(
            f'<rect class="tip" x="{LEFT + index * place:.1f}" y="{TOP}" width="{place:.1f}" '
            f'height="{floor - TOP}"><title>{escape(visible(name))}: {number(value)}</title></rect>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        + "".join(drawn)
        + "</svg>"
    )
