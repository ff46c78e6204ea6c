"""report.html of an evaluation: its tables, a chart, and responses of each kind of end."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alphamed_jax.evaluation.published import published_tables
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.evaluation.tables import Table, all_blocks, bounds, named, share, tables
from alphamed_jax.reporting.html import (
    flat,
    folded,
    header,
    response_article,
    text,
    warnings_section,
    whole_page,
)
from alphamed_jax.reporting.interval_chart import Measured, interval_chart

SHOWN_OF_A_REASON = 2
"""Responses of a benchmark shown for each way in which they were read; right and wrong are two."""


def page(results: Mapping[str, Any], scored: Sequence[Scored], *, published: bool = False) -> str:
    """The whole page.

    Args:
      results: as in results.json.
      scored: the samples they are made of.
      published: also set published figures beside the own ones.
    """
    first, *others = tables(results)
    blocks = results["benchmarks"]
    warnings = [
        (f"{name}:", warning) for name, block in all_blocks(blocks) for warning in block["warnings"]
    ]
    kept = {key: value for key, value in results.items() if key not in ("benchmarks", "cost")}
    return whole_page(
        results["model"],
        [
            _header(results),
            warnings_section(warnings),
            table_section(first),
            _chart(blocks),
            *map(table_section, others),
            *map(table_section, published_tables(results) if published else []),
            _responses(scored),
            "<section><h2>How to repeat it</h2>"
            + folded("How it was asked (results.json)", json.dumps(kept, indent=2))
            + "</section>",
        ],
    )


def table_section(table: Table) -> str:
    """A table under its title."""
    head = "".join(f"<th>{text(name)}</th>" for name in table.head)
    body = "".join(
        f"<tr><th>{text(row[0])}</th>"
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{text(table.note)}</p>' if table.note else ""
    return (
        f'<section><h2>{text(table.title)}</h2>{note}<div class="scroll"><table><thead><tr>{head}'
        f"</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _header(results: Mapping[str, Any]) -> str:
    blocks = results["benchmarks"]
    tiles = [
        (named(name, block), f"{share(block['accuracy'])}  [{bounds(block['interval'])}]")
        for name, block in blocks.items()
    ]
    if len(blocks) > 1:
        tiles += [("macro", share(results["macro"])), ("micro", share(results["micro"]))]
    facts = {
        "Model": results["model"],
        **{name.capitalize(): value for name, value in results["details"].items()},
        "Prompt": results["prompt"],
        "Sampling": results["sampling"],
        "Rule": results["rule"],
        "Versions": results["versions"],
        "Cost": results["cost"],
    }
    escaped = {text(name): value for name, value in facts.items()}
    return header("alphamed_jax evaluation", results["model"], tiles, escaped)


def _chart(blocks: Mapping[str, Any]) -> str:
    rows = [
        Measured(name, block["accuracy"], tuple(block["interval"]), base["accuracy"])
        for name, block in all_blocks(blocks)
        if block["accuracy"] is not None and (base := block["most_frequent_letter"])
    ]
    if not rows:
        return ""
    return (
        '<figure class="alone"><figcaption>Accuracy<small>Dot: accuracy with its 95 % interval. '
        "Upright bar: what always answering the key's most frequent letter gives.</small>"
        f"</figcaption>{interval_chart(rows, label='accuracy with intervals')}</figure>"
    )


def _responses(scored: Sequence[Scored]) -> str:
    parts = []
    for one in scored:
        shown: dict[tuple[str, bool], list[Sample]] = {}
        for sample in one.samples:
            kind = shown.setdefault((sample.reason, sample.right), [])
            if len(kind) < SHOWN_OF_A_REASON:
                kind.append(sample)
        articles = "".join(_article(sample) for kind in shown.values() for sample in kind)
        if articles:
            parts.append(f"<h3>{text(one.facts.name)}</h3>{articles}")
    if not parts:
        return ""
    return (
        '<section class="samples"><h2>Responses</h2><p class="note">The first of each benchmark '
        f"that were read in each way.</p>{''.join(parts)}</section>"
    )


def _article(sample: Sample) -> str:
    facts = [
        ("extracted", sample.letter or f"none ({sample.reason})"),
        ("right answer", sample.question.answer),
        ("tokens", sample.tokens),
        ("", flat({"question": sample.question.id, "sample": sample.sample})),
    ]
    return response_article(sample.prompt, sample.response, facts, right=sample.right)
