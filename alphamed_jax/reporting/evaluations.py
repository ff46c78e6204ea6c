"""The evaluations of a run: before beside after, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from alphamed_jax.intervals import wilson_interval
from alphamed_jax.output.metrics import numeric_leaves
from alphamed_jax.reporting.charts import Series, legend, line_chart
from alphamed_jax.reporting.html import text
from alphamed_jax.text import number

_ORDER = {"sampled": 1, "greedy": 2, "by_source": 8}
"""Blocks of the table; what else an evaluation holds stands after `greedy`."""
_LABELS = {
    "no_answer": "no answer",
    "length_mean": "mean length",
    "steps_share": "reasons in steps",
    "baseline": "baseline: always the most frequent key",
    "most_frequent": "most frequent letter among answers",
}


_OF_BENCHMARKS = ("benchmarks", "macro", "micro")
_COLORS = 6
"""Colours of lines that the style sheet has."""


def evaluations_section(
    evaluations: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None = None
) -> str:
    """Held-out questions, then benchmarks.

    Args:
      best: the best step, as in run.json.
    """
    held = [one for one in evaluations if "benchmarks" not in one or one.get("questions")]
    told = ""
    if best:
        where = f"; its weights: {best['weights']}" if best.get("weights") else ""
        told = (
            f'<p class="note">Best step by {text(best.get("by"))}: {text(best.get("step"))}, '
            f"accuracy {number(best.get('accuracy'))}{text(where)}.</p>"
        )
    measured = [one for one in evaluations if one.get("benchmarks")]
    return _heldout_section(held, told) + _benchmarks_section(measured, "" if held else told)


def _heldout_section(evaluations: Sequence[Mapping[str, Any]], told: str) -> str:
    """Before beside after, every number they hold; then one row for each evaluation."""
    if not evaluations:
        return ""
    shown = [evaluations[0], evaluations[-1]] if len(evaluations) > 1 else [evaluations[0]]
    paths = dict.fromkeys(path for one in shown for path, _ in numeric_leaves(one))
    ordered = sorted(
        (path for path in paths if path != ("step",) and path[0] not in _OF_BENCHMARKS),
        key=lambda path: (len(path) > 1, _ORDER.get(path[0], 3)),
    )
    overall = _comparison(shown, [path for path in ordered if path[0] != "by_source"])
    by_source = [path for path in ordered if path[0] == "by_source"]
    details = ""
    if by_source:
        table = _comparison(shown, by_source)
        details = f"<details><summary>Each source by itself</summary>{table}</details>"
    return (
        '<section><h2>Evaluation on held-out questions</h2><p class="note">In brackets: 95% Wilson '
        "interval over distinct questions, so several samples of one question do not narrow it."
        f"</p>{told}{overall}{details}{_all_evaluations(evaluations)}</section>"
    )


def _benchmarks_section(evaluations: Sequence[Mapping[str, Any]], told: str) -> str:
    """Each benchmark before and after, and its accuracy over the steps."""
    if not evaluations:
        return ""
    first, last = evaluations[0], evaluations[-1]
    rows = "".join(
        _benchmark_row(name, way, first["benchmarks"].get(name), block)
        for name, block in last["benchmarks"].items()
        for way in ("sampled", "greedy")
    )
    macro = (first.get("macro"), last.get("macro"))
    rows += (
        f"<tr><th>macro mean, sampled</th><td></td><td>{number(macro[0])}</td>"
        f"<td>{number(macro[1])}</td><td>{_change('accuracy', *macro)}</td>"
        '<td colspan="4"></td></tr>'
    )
    warnings = "".join(
        f"<li><b>{text(name)}.</b> {text(said)}.</li>"
        for name, block in last["benchmarks"].items()
        for said in block.get("warnings", ())
    )
    return (
        '<section><h2>Benchmarks during training</h2><p class="note">In brackets: 95% interval, as '
        "in results.json. The last columns are of the last evaluation.</p>"
        f'{told}<div class="scroll"><table><thead><tr><th></th><th>asked</th>'
        f"<th>step {first['step']}</th><th>step {last['step']}</th><th>change</th>"
        "<th>always the same letter</th><th>no answer</th><th>truncated</th><th>mean tokens</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
        f"{f'<ul>{warnings}</ul>' if warnings else ''}{_benchmark_curves(evaluations)}</section>"
    )


def _benchmark_row(
    name: str, way: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]
) -> str:
    other = after if way == "sampled" else after["greedy"]
    one = before if before is None or way == "sampled" else before["greedy"]
    # Of other questions, as after another eval.limit, no change can be told.
    same = one is not None and one["fingerprint"] == other["fingerprint"]
    change = _change("accuracy", one["accuracy"], other["accuracy"]) if one and same else "–"
    letter = other["most_frequent_letter"]
    base = "–" if letter is None else f"{number(letter['accuracy'])} ({text(letter['letter'])})"
    cells = (
        f"{other['asked']:,} of {after['rows']:,}",
        "–" if one is None else _within(one),
        _within(other),
        change,
        base,
        *(number(other[key]) for key in ("no_answer", "truncated", "mean_tokens")),
    )
    shown = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><th>{text(name)}, {way}</th>{shown}</tr>"


def _within(block: Mapping[str, Any]) -> str:
    if block["interval"] is None:
        return "–"
    low, high = block["interval"]
    return f'{block["accuracy"]:.3f} <span class="interval">[{low:.3f}, {high:.3f}]</span>'


def _benchmark_curves(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Sampled accuracy over the steps, where there are more than before and after."""
    if len(evaluations) < 3:
        return ""
    names = dict.fromkeys(name for one in evaluations for name in one["benchmarks"])
    series = [
        Series(
            name,
            [one["benchmarks"].get(name, {}).get("accuracy") for one in evaluations],
            1 + place % _COLORS,
        )
        for place, name in enumerate(names)
    ]
    steps = [one["step"] for one in evaluations]
    chart = line_chart(steps, series, limits=(0.0, 1.0), label="accuracy on benchmarks")
    return (
        f'<figure class="alone"><figcaption>Sampled accuracy on benchmarks</figcaption>'
        f"{legend(series)}{chart}</figure>"
    )


def _comparison(shown: Sequence[Mapping[str, Any]], paths: Sequence[tuple[str, ...]]) -> str:
    """Table of one or two evaluations side by side, a row for each path."""
    leaves = [dict(numeric_leaves(one)) for one in shown]
    names = ["before", "after"] if len(shown) > 1 else ["only"]
    head = "".join(
        f"<th>{name}, step {one['step']}</th>" for name, one in zip(names, shown, strict=True)
    )
    head += "<th>change</th>" if len(shown) > 1 else ""
    body, group = [], ()
    for path in paths:
        if path[:-1] != group:
            group = path[:-1]
            title = text(_label(group[1:] if group[0] == "by_source" else group))
            body.append(f'<tr class="group"><th colspan="{len(shown) + 2}">{title}</th></tr>')
        values = [one.get(path) for one in leaves]
        cells = "".join(
            f"<td>{_measured(one, path, v)}</td>" for one, v in zip(shown, values, strict=True)
        )
        if len(shown) > 1:
            cells += f"<td>{_change(path[-1], values[0], values[-1])}</td>"
        body.append(f"<tr><th>{text(_label(path[-1:]))}</th>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _all_evaluations(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Chart and table over all evaluations, where there are more than before and after."""
    if len(evaluations) < 3:
        return ""
    columns = [
        (way, name)
        for way in ("sampled", "greedy")
        for name in ("accuracy", "no_answer", "length_mean")
        if any((one.get(way) or {}).get(name) is not None for one in evaluations)
    ]
    head = "".join(f"<th>{text(_label(path))}</th>" for path in columns)
    body = "".join(
        f"<tr><th>{one['step']}</th>"
        + "".join(f"<td>{_measured(one, p, (one.get(p[0]) or {}).get(p[1]))}</td>" for p in columns)
        + "</tr>"
        for one in evaluations
    )
    series = [
        Series(way, [(one.get(way) or {}).get("accuracy") for one in evaluations], color)
        for way, color in (("sampled", 1), ("greedy", 3))
    ]
    series.append(Series("baseline", [one.get("baseline") for one in evaluations], 6))
    chart = line_chart(
        [one["step"] for one in evaluations], series, limits=(0.0, 1.0), label="held-out accuracy"
    )
    return (
        f'<figure class="alone"><figcaption>Held-out accuracy</figcaption>{legend(series)}{chart}'
        f'</figure><div class="scroll"><table><thead><tr><th>step</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _label(path: Sequence[str]) -> str:
    return ", ".join(_LABELS.get(key, key.replace("_", " ")) for key in path)


def _measured(
    evaluation: Mapping[str, Any], path: tuple[str, ...], value: float | int | None
) -> str:
    if value is None:
        return "–"
    if path[-1] != "accuracy" or not 0 <= value <= 1 or not (n := _trials(evaluation, path)):
        return number(value)
    low, high = wilson_interval(value, n)
    return f'{value:.3f} <span class="interval">[{low:.3f}, {high:.3f}]</span>'


def _trials(evaluation: Mapping[str, Any], path: Sequence[str]) -> int:
    """Distinct questions behind an accuracy; 0 if the record does not tell."""
    # One source has fewer questions than the whole evaluation.
    found = 0 if path[0] == "by_source" else evaluation.get("questions") or 0
    scope: Mapping[str, Any] = evaluation
    for key in path[:-1]:
        scope = scope[key]
        own = scope.get("questions")
        found = own if isinstance(own, int) and own else found  # a source may have that name
    samples = evaluation.get("samples_per_question") or 1 if "sampled" in path else 1
    return int(found or (scope.get("total") or 0) // samples)


def _change(name: str, before: float | int | None, after: float | int | None) -> str:
    if before is None or after is None:
        return "–"
    if name == "accuracy":
        return f"{100 * (after - before):+.1f} points"
    return ("+" if after > before else "") + number(after - before)
