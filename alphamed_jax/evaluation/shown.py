"""Results on the terminal: what is evaluated, then accuracies, warnings and where the rest is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from alphamed_jax.evaluation.ask import AskedSet
from alphamed_jax.evaluation.published import numbered, published_tables
from alphamed_jax.evaluation.tables import all_blocks, tables
from alphamed_jax.terminal.display import warn
from alphamed_jax.terminal.tables import text_table
from alphamed_jax.text import count, visible

SHOWN = ("Accuracy", "Changed questions", "Robustness", "Several samples of each question")
"""Titles of the tables that a terminal shows; results.md has all."""


def set_lines(sets: Sequence[AskedSet]) -> list[str]:
    """How many questions of each set are asked, and why others are not."""
    lines = []
    for asked in sets:
        questions = asked.questions
        line = f"{questions.name}: {count(len(asked.prompts), 'question')}"
        if questions.seed is not None:
            line += f", a sample of the {questions.rows:,} by seed {questions.seed}"
        not_asked = [f"{number:,} {reason}" for reason, number in asked.not_asked.items()]
        if not_asked:
            line += f"; not asked: {', '.join(not_asked)}"
        lines.append(line)
    return lines


def show_results(
    console: Console, results: Mapping[str, Any], folder: Path, *, published: bool = False
) -> None:
    """Print the first tables, every warning, published figures if asked for, and the folder."""
    for table in tables(results):
        if table.title in SHOWN:
            console.print(text_table(table.title, table.head, table.rows))
    for name, block in all_blocks(results["benchmarks"]):
        for warning in block["warnings"]:
            warn(console, f"{name}: {warning}.")
    others = published_tables(results) if published else []
    if published and not others:
        names = ", ".join(results["benchmarks"])
        console.print(f"No published figures of {names} are known here.", markup=False)
    for table in map(numbered, others):
        console.print(text_table(table.title, table.head, table.rows))
        console.print(visible(table.note), markup=False, highlight=False)
    console.print(f"{folder}: results.md, report.html, results.json, samples", markup=False)
