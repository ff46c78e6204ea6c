"""report.html of a scoring: how difficult and how long the questions of each source are."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alphamed_jax.evaluation.page import table_section
from alphamed_jax.evaluation.tables import Table
from alphamed_jax.reporting.bar_chart import bar_chart
from alphamed_jax.reporting.html import folded, header, text, warnings_section, whole_page


def page(said: Mapping[str, Any], tables: Sequence[Table], warnings: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
      said: as in scores.json.
      warnings: lines without a full stop.
    """
    kept = {key: value for key, value in said.items() if key not in ("by_source", "cost")}
    return whole_page(
        f"Scores by {said['model']}",
        [
            _header(said),
            warnings_section([("", warning) for warning in warnings]),
            *map(table_section, tables),
            *(_charts(name, block) for name, block in said["by_source"].items()),
            "<section><h2>How to repeat it</h2>"
            + folded("How it was asked (scores.json)", json.dumps(kept, indent=2))
            + "</section>",
        ],
    )


def _header(said: Mapping[str, Any]) -> str:
    blocks = said["by_source"]
    whole = blocks.get("all", next(iter(blocks.values())))
    levels = whole["levels"]
    some = whole["questions"] - levels["L1"] - levels["L6"]
    tiles = [
        ("questions", f"{whole['questions']:,}"),
        ("pass rate", f"{whole['pass_rate']:.3f}"),
        ("right at times", f"{some / whole['questions']:.3f}"),
        ("no answer", f"{whole['no_answer']:.3f}"),
    ]
    names = ("model", "revision", "weights", "prompt", "sampling", "revisions", "dropped")
    names = (*names, "not_asked", "versions", "cost")
    facts = {text(name.replace("_", " ").capitalize()): said[name] for name in names}
    return header("alphamed_jax curate score", said["model"], tiles, facts)


def _charts(name: str, block: Mapping[str, Any]) -> str:
    lengths, passes = block["question_lengths"], block["passes"]
    width, counts = lengths["bin"], lengths["counts"]
    begins = [f"{place * width:,}" for place in range(len(counts))]
    begins[-1] += "+"
    figures = (
        (
            "Level",
            "L1: all responses are right. L6: none is.",
            list(block["levels"]),
            list(block["levels"].values()),
            1,
        ),
        (
            "Right responses",
            f"of {len(passes) - 1} to each question",
            [str(number) for number in range(len(passes))],
            passes,
            2,
        ),
        (
            "Length of the question",
            f"in tokens of the model, {width} to a bar, without options",
            begins,
            counts,
            5,
        ),
    )
    drawn = "".join(
        f"<figure><figcaption>{text(title)}<small>{text(meaning)}</small></figcaption>"
        f"{bar_chart(names, values, color=color, label=f'{title} of {name}')}</figure>"
        for title, meaning, names, values, color in figures
    )
    return f'<section><h2>{text(name)}</h2><div class="grid">{drawn}</div></section>'
