"""Line and area charts as inline SVG: no script, no library, coloured by the page's style sheet.

Numbers come in as plain lists with None for "no value"; a chart leaves a gap there. Colours are the
CSS classes `c1`, `c2`, ... so that one chart serves the light page, the dark page and paper.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from alphamed_jax.text import number

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 480, 46, 10, 8, 22
TOOLTIPS = 240
"""At most so many steps of a chart carry a tooltip: each costs some 150 bytes of page."""
SMOOTHED_FROM = 40
"""A line of so many values is drawn faintly, with its running median on top."""


@dataclass(frozen=True)
class Series:
    """One line or one layer of a chart; `values[i]` belongs to `steps[i]` of the chart."""

    name: str
    values: Sequence[float | int | None]
    color: int = 1


def line_chart(
    steps: Sequence[int],
    series: Sequence[Series],
    *,
    height: int = 170,
    limits: tuple[float, float] | None = None,
    stacked: bool = False,
    smooth: bool = True,
    tooltips: bool = True,
    label: str = "",
) -> str:
    """Draw series over steps as one `<svg>`.

    Args:
      steps: ascending step numbers, one for each value.
      series: what to draw; several share the axis.
      height: of the drawing, in its own units (the width is 480).
      limits: lowest and highest value of the axis; by default 0 (or the lowest value, if
        negative) and a bound that rare spikes do not stretch.
      stacked: layers on top of each other instead of lines.
      smooth: draw many values faintly, under their running median.
      tooltips: name the values of a step where the mouse rests.
      label: read out by screen readers.

    Raises:
      ValueError: a series is not as long as the steps.
    """
    for one in series:
        if len(one.values) != len(steps):
            raise ValueError(f"{one.name}: {len(one.values)} values for {len(steps)} steps")
    layers = _layers(series, stacked=stacked)
    low, high = limits or value_limits([top for _, top in layers], robust=not stacked)
    first, last = (steps[0], steps[-1]) if steps else (0, 0)

    def x(step: float | int) -> float:
        share = (step - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        # Spikes beyond the axis end in the margin, still in sight.
        share = min(1.05, max(-0.05, (value - low) / (high - low)))
        return height - BOTTOM - share * (height - BOTTOM - TOP)

    drawn = [_axes(x, y, (first, last), (low, high), height)]
    xs = [x(step) for step in steps]
    for one, (bottom, top) in zip(series, layers, strict=True):
        heights = [None if value is None else y(value) for value in top]
        if stacked:
            floors = [None if value is None else y(value) for value in bottom]
            drawn.append(_area(xs, floors, heights, one.color))
        elif smooth and sum(value is not None for value in top) >= SMOOTHED_FROM:
            trend = running_median(top, window=max(5, len(top) // 20))
            drawn.append(_line(xs, heights, one.color, "raw"))
            drawn.append(
                _line(xs, [None if v is None else y(v) for v in trend], one.color, "trend")
            )
        else:
            drawn.append(_line(xs, heights, one.color, "line"))
    if tooltips:
        drawn.append(_tooltips(steps, series, x, height))
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        + "".join(drawn)
        + "</svg>"
    )


def legend(series: Sequence[Series]) -> str:
    """Name and last known value of each series, with its colour."""
    parts = []
    for one in series:
        known = [value for value in _clean(one.values) if value is not None]
        last = number(known[-1]) if known else "–"
        parts.append(f'<span class="key c{one.color}">{escape(one.name)} <b>{last}</b></span>')
    return f'<p class="legend">{"".join(parts)}</p>'


def beyond_note(series: Sequence[Series]) -> str:
    """Say which values lie above the axis that `line_chart` chooses; empty if none does."""
    values = [_clean(one.values) for one in series]
    _, high = value_limits(values)
    above = [value for one in values for value in one if value is not None and value > high]
    if not above:
        return ""
    what = "value lies" if len(above) == 1 else "values lie"
    return f'<p class="note">{len(above)} {what} above the axis, up to {number(max(above))}.</p>'


def value_limits(
    values: Sequence[Sequence[float | None]], *, robust: bool = True
) -> tuple[float, float]:
    """Axis limits for some series: from 0 or below to a little above the highest value.

    Args:
      values: the values of each series.
      robust: leave values out that are more than 3 times the 95th percentile, as the first step
        with its compilation or one exploded gradient would flatten all else.
    """
    known = sorted(value for one in values for value in one if value is not None)
    if not known:
        return 0.0, 1.0
    high = known[-1]
    if robust and len(known) >= 10:
        common = known[int(0.95 * (len(known) - 1))]
        high = common if high > 3 * common > 0 else high
    low = min(0.0, known[0])
    high = max(0.0, high)
    # A span near the smallest float cannot be divided into ticks; nothing measured is that small.
    return (low, high + 0.08 * (high - low)) if high - low > 1e-200 else (0.0, 1.0)


def ticks(low: float | int, high: float | int, count: int = 4) -> list[float]:
    """Round numbers between two limits, about `count` of them.

    Raises:
      ValueError: high is not above low.
    """
    if not high > low:
        raise ValueError(f"expected low < high, got {low} and {high}")
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    size = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * 0.999)
    start = math.ceil(low / size - 1e-9)
    stop = math.floor(high / size + 1e-9)
    return [index * size for index in range(start, stop + 1)]


def running_median(values: Sequence[float | None], window: int) -> list[float | None]:
    """Median of the last `window` known values at each place; gaps stay gaps.

    A median, as one exploded gradient would lift a running mean for as long as the window.
    """
    recent: list[float] = []
    medians: list[float | None] = []
    for value in values:
        if value is None:
            medians.append(None)
            continue
        recent = [*recent, value][-window:]
        medians.append(statistics.median(recent))
    return medians


def _clean(values: Sequence[float | int | None]) -> list[float | None]:
    return [float(v) if v is not None and math.isfinite(v) else None for v in values]


def _layers(
    series: Sequence[Series], *, stacked: bool
) -> list[tuple[list[float | None], list[float | None]]]:
    """Lower and upper edge of each series; lines start at 0, layers where the one below ends.

    A step that lacks the value of one layer shows none of them.
    """
    values = [_clean(one.values) for one in series]
    if not stacked:
        return [([0.0] * len(one), one) for one in values]
    floor: list[float | None] = [
        None if None in column else 0.0 for column in zip(*values, strict=True)
    ]
    layers = []
    for one in values:
        top = [None if f is None or v is None else f + v for f, v in zip(floor, one, strict=True)]
        layers.append((floor, top))
        floor = top
    return layers


def _runs(values: Sequence[float | None]) -> list[range]:
    """Index ranges without a gap."""
    runs: list[range] = []
    for index, value in enumerate(values):
        if value is None:
            continue
        if runs and runs[-1].stop == index:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return runs


def _points(xs: Sequence[float], ys: Sequence[float | None], indices: Sequence[int]) -> str:
    return " ".join(f"{xs[i]:.1f},{ys[i]:.1f}" for i in indices)


def _line(xs: Sequence[float], ys: Sequence[float | None], color: int, kind: str) -> str:
    drawn = []
    for run in _runs(ys):
        points = _points(xs, ys, run)
        if len(run) == 1:  # a line of one point would not show
            cx, cy = points.split(",")
            drawn.append(f'<circle class="{kind} c{color}" cx="{cx}" cy="{cy}" r="2.5"/>')
        else:
            drawn.append(f'<polyline class="{kind} c{color}" points="{points}"/>')
    return "".join(drawn)


def _area(
    xs: Sequence[float], floors: Sequence[float | None], tops: Sequence[float | None], color: int
) -> str:
    drawn = []
    for run in _runs(tops):
        upper, lower = _points(xs, tops, run), _points(xs, floors, run[::-1])
        if len(run) == 1:  # an area of one step would not show
            drawn.append(f'<polyline class="bar c{color}" points="{upper} {lower}"/>')
        else:
            drawn.append(f'<polygon class="area c{color}" points="{upper} {lower}"/>')
    return "".join(drawn)


def _axes(
    x: Callable[[float], float],
    y: Callable[[float], float],
    span: tuple[int, int],
    limits: tuple[float, float],
    height: int,
) -> str:
    """Horizontal grid lines with their values, and step numbers below."""
    drawn = []
    for value in ticks(*limits, count=4 if height > 100 else 2):
        at = f"{y(value):.1f}"
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        drawn.append(f'<text class="y" x="{LEFT - 6}" y="{at}">{number(value)}</text>')
    first, last = span
    marks = [first]
    if last > first:
        inner = [round(v) for v in ticks(first, last) if v == round(v)]
        room = (last - first) / 12  # labels closer than this would touch
        marks = [first, *(v for v in inner if first + room < v < last - room), last]
    for step in marks:
        drawn.append(f'<text class="x" x="{x(step):.1f}" y="{height - 6}">{step}</text>')
    return "".join(drawn)


def _tooltips(
    steps: Sequence[int], series: Sequence[Series], x: Callable[[float], float], height: int
) -> str:
    """Invisible bars that name the values of a step where the mouse rests."""
    stride = math.ceil(len(steps) / TOOLTIPS) or 1
    wide = max(2.0, (WIDTH - LEFT - RIGHT) / max(1, len(steps)) * stride)
    drawn = []
    for index in range(0, len(steps), stride):
        said = " · ".join(f"{one.name} {number(one.values[index])}" for one in series)
        drawn.append(
            f'<rect class="tip" x="{x(steps[index]) - wide / 2:.1f}" y="{TOP}" '
            f'width="{wide:.1f}" height="{height - TOP - BOTTOM}">'
            f"<title>step {steps[index]}: {escape(said)}</title></rect>"
        )
    return "".join(drawn)
