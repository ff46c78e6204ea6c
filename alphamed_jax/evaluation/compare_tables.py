"""A comparison for readers: its tables in Markdown and on a page, and what they say in a line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alphamed_jax.evaluation.markdown import table_lines
from alphamed_jax.evaluation.page import table_section
from alphamed_jax.evaluation.paired import LEVEL
from alphamed_jax.evaluation.tables import Table, bounds, share
from alphamed_jax.reporting.html import folded, header, text, warnings_section, whole_page
from alphamed_jax.reporting.interval_chart import Measured, interval_chart
from alphamed_jax.text import count, fixed, number, visible

MACRO = "macro: mean over benchmarks"
FLIPS = 50
"""Questions shown for each way and benchmark; compare.json has all."""

Block = Mapping[str, Any]


def tables(compared: Mapping[str, Any], flips: int = FLIPS) -> list[Table]:
    """All tables of a comparison.

    Args:
      compared: as in compare.json.
      flips: how many questions to show for each way in which they flipped.
    """
    found = [_accuracies(compared)]
    found += [_differences(one) for one in compared["comparisons"]]
    found += [_responses(compared)]
    found += [_flips(one, flips) for one in compared["comparisons"]]
    return [table for table in found if table.rows]


def verdict(comparison: Mapping[str, Any]) -> str:
    """What a comparison shows, in a sentence without its full stop."""
    base, other = comparison["base"], comparison["other"]
    blocks = {name: block for name, block in comparison["sets"].items() if not block["change"]}
    shown = {name: block for name, block in blocks.items() if block["p_holm"] < LEVEL}
    ways = {
        "better": [name for name, block in shown.items() if block["difference"] > 0],
        "worse": [name for name, block in shown.items() if block["difference"] < 0],
    }
    said = [f"{way} than {base} on {', '.join(names)}" for way, names in ways.items() if names]
    if not blocks:
        return f"{other} and {base}: no benchmark itself is in both, only changed forms"
    of = f"{count(len(blocks), 'benchmark')}, p by Holm below {LEVEL:g}"
    if not said:
        return f"No difference between {other} and {base} is shown ({of})"
    return f"{other} is {' and '.join(said)} ({of})"


def markdown(compared: Mapping[str, Any]) -> str:
    """compare.md."""
    lines = ["# " + visible(_title(compared)), ""]
    lines += [f"- {visible(line)}" for line in folder_lines(compared)]
    lines += ["", *(f"- {visible(verdict(one))}." for one in compared["comparisons"]), ""]
    if compared["warnings"]:
        lines += ["## Warnings", "", *(f"- {visible(w)}." for w in compared["warnings"]), ""]
    for table in tables(compared):
        lines += table_lines(table)
    return "\n".join(lines).rstrip() + "\n"


def page(compared: Mapping[str, Any]) -> str:
    """compare.html, in the look of a run's report."""
    tiles = []
    for one in compared["comparisons"]:
        if macro := one["macro"]:
            name = f"{one['base']} → {one['other']}, macro"
            tiles.append(
                (name, f"{signed(macro['difference'])}  [{signed_bounds(macro['interval'])}]")
            )
    facts = {
        text(f"{one['name']}"): {key: one[key] for key in ("model", "prompt", "sampling", "rule")}
        for one in compared["folders"]
    }
    said = "".join(f"<li>{text(verdict(one))}.</li>" for one in compared["comparisons"])
    first, *others = tables(compared)
    kept = {key: value for key, value in compared.items() if key != "comparisons"}
    return whole_page(
        _title(compared),
        [
            header("alphamed_jax comparison", _title(compared), tiles, facts),
            warnings_section([("", warning) for warning in compared["warnings"]]),
            f"<section><h2>What is shown</h2><ul>{said}</ul></section>",
            table_section(first),
            _chart(compared),
            *map(table_section, others),
            "<section><h2>How to repeat it</h2>"
            + folded("What was compared (compare.json)", json.dumps(kept, indent=2))
            + "</section>",
        ],
    )


def signed(value: float | None) -> str:
    """A difference of shares."""
    return fixed(value, "+.3f")


def signed_bounds(interval: Sequence[float] | None, form: str = "+.3f") -> str:
    """An interval of a difference."""
    return "-" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def _title(compared: Mapping[str, Any]) -> str:
    first, *others = (one["name"] for one in compared["folders"])
    return f"{', '.join(others)} beside {first}"


def folder_lines(compared: Mapping[str, Any]) -> Iterator[str]:
    """What each of the names stands for."""
    for one in compared["folders"]:
        prompt = one["prompt"].get("name", "-")
        how = f"prompt {prompt}, rule {one['rule']}"
        yield f"{one['name']}: {one['model']}, {how} ({one['folder']})"


def _sides(compared: Mapping[str, Any]) -> Iterator[tuple[str, str, Block]]:
    """Set, evaluation and its side of the comparison with the first; the first itself in front."""
    beside_first = compared["comparisons"][: len(compared["folders"]) - 1]
    for name in beside_first[0]["sets"]:
        yield name, beside_first[0]["base"], beside_first[0]["sets"][name]["base"]
        for one in beside_first:
            yield name, one["other"], one["sets"][name]["other"]


def _accuracies(compared: Mapping[str, Any]) -> Table:
    names = [one["name"] for one in compared["folders"]]
    first = compared["comparisons"][0]
    cells: dict[str, list[str]] = {}
    for name, _, side in _sides(compared):
        cells.setdefault(name, []).append(f"{share(side['accuracy'])} ({bounds(side['interval'])})")
    rows = {
        name: (name, f"{first['sets'][name]['questions']:,}", *found)
        for name, found in cells.items()
    }
    macro = None
    if first["macro"]:
        others = (one["macro"]["other"] for one in compared["comparisons"][: len(names) - 1])
        macro = (MACRO, "", *map(share, (first["macro"]["base"], *others)))
    return Table(
        "Accuracy",
        ("benchmark", "questions", *names),
        _with_macro(first["sets"], rows, macro),
        "In brackets: each accuracy's own 95 % interval. Whether two differ is told by their "
        "difference below, not by whether these overlap: the questions are the same.",
    )


def _with_macro(
    blocks: Mapping[str, Block], rows: Mapping[str, tuple[str, ...]], macro: tuple[str, ...] | None
) -> list[tuple[str, ...]]:
    """Rows of the benchmarks, their macro mean, then rows of changed forms."""
    benchmarks = [row for name, row in rows.items() if not blocks[name]["change"]]
    changed = [row for name, row in rows.items() if blocks[name]["change"]]
    return [*benchmarks, *([macro] if macro else []), *changed]


def _differences(comparison: Mapping[str, Any]) -> Table:
    blocks = comparison["sets"]
    several = any(block["samples"] > 1 for block in blocks.values())
    rows = {
        name: (
            name,
            f"{block['distinct']:,}",
            signed(block["difference"]),
            signed_bounds(block["interval"]),
            number(block["p"]),
            number(block["p_holm"]),
            f"{block['better']:,}",
            f"{block['worse']:,}",
            _whole(block["needed"]["questions"]),
            *([_whole(block["needed"]["samples"])] if several else []),
            fixed(block["needed"]["detectable"], ".3f"),
        )
        for name, block in blocks.items()
    }
    head = ("benchmark", "questions", "difference", "95 % interval", "p", "p, Holm", "better")
    head = (*head, "worse", "needed", *(["samples needed"] if several else []), "detectable")
    macro = None
    if found := comparison["macro"]:
        figures = (signed(found["difference"]), signed_bounds(found["interval"]))
        macro = (MACRO, "", *figures, *("",) * (len(head) - 4))
    tests = " and ".join(dict.fromkeys(block["test"] for block in blocks.values()))
    samples = " Samples needed: of each of these questions; - where no number is enough."
    return Table(
        f"{comparison['base']} → {comparison['other']}",
        head,
        _with_macro(blocks, rows, macro),
        "Interval: bootstrap over distinct questions, responses paired by question and sample "
        f"number. p: {tests}. Better, worse: distinct questions. Needed: distinct questions that "
        "would show a true difference of this size in four of five evaluations."
        f"{samples if several else ''} Detectable: the smallest difference that these questions "
        "would show so often.",
    )


def _whole(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _responses(compared: Mapping[str, Any]) -> Table:
    differences = {
        (name, one["other"]): block["tokens"]
        for one in compared["comparisons"][: len(compared["folders"]) - 1]
        for name, block in one["sets"].items()
    }
    rows = []
    for name, evaluation, side in _sides(compared):
        tokens = differences.get((name, evaluation)) or {"difference": None, "interval": None}
        rows.append(
            (
                name,
                evaluation,
                share(side["no_answer"]),
                share(side["truncated"]),
                fixed(side["mean_tokens"], ".1f"),
                fixed(tokens["difference"], "+.1f"),
                signed_bounds(tokens["interval"], "+.1f"),
            )
        )
    return Table(
        "Responses",
        (
            "benchmark",
            "evaluation",
            "no answer",
            "cut",
            "tokens",
            f"against {compared['folders'][0]['name']}",
            "95 % interval",
        ),
        rows,
        "No answer and cut: shares of responses. Tokens: mean of a response.",
    )


def _flips(comparison: Mapping[str, Any], most: int) -> Table:
    rows, left = [], 0
    blocks = {name: block for name, block in comparison["sets"].items() if not block["change"]}
    for name, block in blocks.items():
        for way, flips in block["flips"].items():
            left += max(0, len(flips) - most)
            rows += [
                (one["id"], name, way, one["answer"], *map(_letters, (one["base"], one["other"])))
                for one in flips[:most]
            ]
    note = "Letters: what each sample answers, - where there is no answer."
    if left:
        note += f" {left:,} more are in compare.json."
    return Table(
        f"Questions that flipped: {comparison['base']} → {comparison['other']}",
        ("question", "benchmark", "", "right", comparison["base"], comparison["other"]),
        rows,
        note,
    )


def _letters(found: Sequence[str | None]) -> str:
    return " ".join(letter or "-" for letter in found)


def _chart(compared: Mapping[str, Any]) -> str:
    """Accuracies of all evaluations, each beside that of the first."""
    first = {
        name: side["accuracy"]
        for name, one, side in _sides(compared)
        if one == compared["folders"][0]["name"]
    }
    rows = [
        Measured(f"{name}, {one}", side["accuracy"], tuple(side["interval"]), first[name])
        for name, one, side in _sides(compared)
    ]
    return (
        '<figure class="alone"><figcaption>Accuracy<small>Dot: accuracy with its own 95 % '
        f"interval. Upright bar: accuracy of {text(compared['folders'][0]['name'])}.</small>"
        f"</figcaption>{interval_chart(rows, label='accuracies beside each other')}</figure>"
    )
