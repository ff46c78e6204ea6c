"""Charts of `reporting` side by side in an SVG file that stands alone, as docs/ shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from alphamed_jax.reporting.charts import LEFT, WIDTH

TITLE, GAP = 24, 20
KEY = 110
"""Width of a name in the line that tells the colours."""
COLOURS = (
    *("#0b6e99", "#c4631a", "#5a8f29", "#8d4fa8"),
    *("#b3324a", "#2f8f83", "#8a6d1f", "#5b6bbf"),
)
"""Of the classes c1, c2, ... of the charts."""
STYLE = (
    "text{font:15px sans-serif;fill:#777}text.y{text-anchor:end;dominant-baseline:central}"
    "text.x{text-anchor:middle}line.grid{stroke:#8884}polyline{fill:none;stroke-width:2}"
    "rect.tip{fill-opacity:0}.raw{stroke-opacity:.2}"
)


@dataclass(frozen=True)
class Panel:
    """A chart and what stands above it."""

    title: str
    chart: str
    """An `<svg>` of the width that all charts have."""
    height: int
    """Of the chart."""


def standing_svg(panels: Sequence[Panel], colours: int, names: Sequence[str] = ()) -> str:
    """Panels from left to right.

    Args:
      colours: how many of the classes the charts use.
      names: what the first colours stand for; written below in these, where there are any.

    Raises:
      ValueError: more than there are colours.
    """
    if max(colours, len(names)) > len(COLOURS):
        raise ValueError(f"{max(colours, len(names))} colours of {len(COLOURS)}")
    drawn = []
    for index, panel in enumerate(panels):
        left = index * (WIDTH + GAP)
        place = f'<svg x="{left}" y="{TITLE}" width="{WIDTH}" height="{panel.height}"'
        drawn.append(f'<text x="{left + LEFT}" y="14">{escape(panel.title)}</text>')
        drawn.append(panel.chart.replace("<svg", place, 1))
    height = TITLE + max(panel.height for panel in panels)
    for index, name in enumerate(names):
        x = LEFT + index * KEY
        drawn.append(
            f'<text class="k c{index + 1}" x="{x}" y="{height + 16}">{escape(name)}</text>'
        )
    height += TITLE if names else 0
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(panels) * (WIDTH + GAP)} '
        f'{height}"><style>{STYLE}{_rules(colours)}</style>{"".join(drawn)}</svg>\n'
    )


def _rules(colours: int) -> str:
    """What each class is drawn with: lines by their stroke, dots and words by what fills them."""
    return "".join(
        f".c{i}{{stroke:{colour}}}circle.c{i}{{fill:{colour}}}text.c{i}{{fill:{colour};stroke:none}}"
        for i, colour in enumerate(COLOURS[:colours], 1)
    )
