"""What scores say, in sums: by source and level, in scores.json, on the terminal and the page."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from rich.console import Console

from alphamed_jax.curation.levels import LEVELS, level_name
from alphamed_jax.curation.score_file import NAME as SCORES
from alphamed_jax.curation.score_file import read_columns, read_head
from alphamed_jax.curation.score_page import page
from alphamed_jax.evaluation.tables import Table
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.terminal.tables import text_table
from alphamed_jax.text import fixed

NAME, REPORT = "scores.json", "report.html"
ALL = "all"
LENGTH_BINS = 20
"""Of the histograms of question lengths; the last one takes what is longer."""


def summarise(columns: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """Counts of each source, and of all where there are several.

    Args:
      columns: of scores.parquet, `source` and the numbers.
      samples: responses to each question.
    """
    sources = np.asarray(columns["source"])
    names = list(dict.fromkeys(columns["source"]))
    width = max(1, int(np.percentile(columns["question_tokens"], 99)) // (LENGTH_BINS - 1) + 1)
    blocks = {name: _block(columns, sources == name, samples, width) for name in names}
    if len(names) > 1:
        blocks[ALL] = _block(columns, np.ones(len(sources), bool), samples, width)
    return blocks


def _block(
    columns: Mapping[str, Any], here: Bool[np.ndarray, "n"], samples: int, width: int
) -> dict[str, Any]:
    """What is said of the questions `here`."""
    found = {name: values[here] for name, values in columns.items() if name != "source"}
    questions = int(here.sum())
    responses = questions * samples
    bins = np.minimum(found["question_tokens"] // width, LENGTH_BINS - 1)
    return {
        "questions": questions,
        "pass_rate": float(found["passes"].sum() / responses),
        "no_answer": float(found["no_answer"].sum() / responses),
        "truncated": float(found["truncated"].sum() / responses),
        "response_tokens": float(found["tokens"].sum() / responses),
        "question_tokens": float(found["question_tokens"].mean()),
        "levels": {level_name(level): int((found["level"] == level).sum()) for level in LEVELS},
        "passes": np.bincount(found["passes"], minlength=samples + 1).tolist(),
        "question_lengths": {
            "bin": width,
            "counts": np.bincount(bins, minlength=LENGTH_BINS).tolist(),
        },
    }


def write_summary(folder: Path, cost: Mapping[str, Any]) -> None:
    """Write scores.json and report.html beside scores.parquet.

    Args:
      cost: of the last start; empty where it sampled nothing.
    """
    path = folder / SCORES
    head = read_head(path)
    numbers = ("passes", "no_answer", "truncated", "tokens", "question_tokens", "level")
    blocks = summarise(read_columns(path, ("source", *numbers)), head.samples)
    said = dataclasses.asdict(head) | {"by_source": blocks, "cost": dict(cost)}
    write_atomically(folder / NAME, json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    write_atomically(folder / REPORT, page(said, tables(blocks), warnings(said)))


def tables(blocks: Mapping[str, Any]) -> list[Table]:
    """The levels, then what the responses were like, one row a source."""
    return [
        Table(
            "Difficulty",
            ("source", "questions", *map(level_name, LEVELS), "pass rate"),
            [
                (
                    name,
                    f"{block['questions']:,}",
                    *(f"{number:,}" for number in block["levels"].values()),
                    fixed(block["pass_rate"], ".3f"),
                )
                for name, block in blocks.items()
            ],
            "L1: all responses are right. L6: none is.",
        ),
        Table(
            "Responses",
            ("source", "no answer", "truncated", "tokens", "tokens of the question"),
            [
                (
                    name,
                    fixed(block["no_answer"], ".3f"),
                    fixed(block["truncated"], ".3f"),
                    fixed(block["response_tokens"], ".1f"),
                    fixed(block["question_tokens"], ".1f"),
                )
                for name, block in blocks.items()
            ],
            "Shares of all responses; means of tokens, the question's without options and "
            "instruction.",
        ),
    ]


def show_scores(console: Console, folder: Path) -> None:
    """Print the tables, a warning where responses say little, and where the rest is."""
    said = json.loads((folder / NAME).read_text("utf-8"))
    for table in tables(said["by_source"]):
        console.print(text_table(table.title, table.head, table.rows))
    for warning in warnings(said):
        console.print(f"warning: {warning}.", style="yellow", markup=False)
    console.print(f"{folder}: {SCORES}, {REPORT}, {NAME}", markup=False)


def warnings(said: Mapping[str, Any]) -> list[str]:
    """Where the levels tell more of the model's form than of the questions."""
    found = []
    for name, block in said["by_source"].items():
        for key, words, advice in (
            ("truncated", "were cut", "raise --max-new-tokens"),
            (
                "no_answer",
                "give no answer",
                "another --prompt may help, or a model that follows it",
            ),
        ):
            if block[key] > MUCH:
                share = f"{block[key]:.0%} of the responses {words}"
                found.append(f"{name}: {share}, so that levels say little of difficulty; {advice}")
                break
    return found


MUCH = 0.5
"""Share of responses from which on a level says more about form than about difficulty. Ours."""
