"""results.md: the tables of a result as Markdown."""

import re
from collections.abc import Mapping
from typing import Any

from alphamed_jax.evaluation.published import published_tables
from alphamed_jax.evaluation.tables import Table, all_blocks, tables
from alphamed_jax.reporting.html import flat
from alphamed_jax.text import visible


def markdown(results: Mapping[str, Any], *, published: bool = False) -> str:
    """The whole file.

    Args:
      results: as in results.json.
      published: also set published figures beside the own ones.
    """
    first, *others = tables(results)
    lines = [f"# Evaluation of {_cell(results['model'])}", ""]
    lines += [
        f"- {name}: {_cell(flat(results[name]))}"
        for name in ("prompt", "sampling", "rule", "details", "versions", "cost")
        if results[name]
    ]
    lines += ["", *table_lines(first)]
    warnings = [
        f"- **{name}**: {_cell(warning)}."
        for name, block in all_blocks(results["benchmarks"])
        for warning in block["warnings"]
    ]
    if warnings:
        lines += ["## Warnings", "", *warnings, ""]
    for table in others + (published_tables(results) if published else []):
        lines += table_lines(table)
    return "\n".join(lines).rstrip() + "\n"


def table_lines(table: Table) -> list[str]:
    """A table under its title, as lines."""
    note = [table.note, ""] if table.note else []
    return [
        f"## {_cell(table.title)}",
        "",
        *note,
        "| " + " | ".join(map(_cell, table.head)) + " |",
        "|" + "---|" * len(table.head),
        *("| " + " | ".join(map(_cell, row)) + " |" for row in table.rows),
        "",
    ]


def _cell(text: str) -> str:
    """Text that neither ends a cell nor becomes markup."""
    said = " ".join(visible(text).split())
    # An underscore within a word is none to Markdown.
    return re.sub(r"([\\|<`*\[]|(?<!\w)_|_(?!\w))", r"\\\1", said)
