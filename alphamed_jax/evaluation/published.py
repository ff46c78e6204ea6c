"""Accuracies that others have published, with the source of each, beside own ones.

There are three kinds, each in a table of its own: what the authors of a model or method report of
it (and what they quote beside it), what others measured when they ran it again, and what was
measured here. published.csv has the cells of the first two that were checked against their source;
a cell that is not there is shown as a dash, never filled in from elsewhere.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.tables import Table, named

FILE = Path(__file__).with_name("published.csv")
BLOCKS = {
    "authors": "Published by the authors",
    "independent": "Published by others who ran it again",
}
"""Kind of a cell -> title of its table."""
NOTHING = "–"

VARIANTS_OF = {
    "medqa": ("medqa-usmle-4",),
    "medmcqa": ("medmcqa-validation",),
    "pubmedqa": ("pubmedqa-500-abstract", "pubmedqa-1000-abstract"),
    "mmlu_pro_medical": ("mmlu-pro-health+biology",),
    "gpqa_medical": ("gpqa-medical-78",),
    "medxpertqa_text": ("medxpertqa-text-2450",),
}
"""Benchmark as the file calls it -> our variants that it can be set beside."""
_SOURCED = ("source", "note")
_ALL_LABELLED = "PubMedQA on 1,000 rows"


@dataclass(frozen=True)
class Cell:
    """One published accuracy."""

    model: str
    benchmark: str
    """A key of `VARIANTS_OF`."""
    value: float
    """In percent."""
    shown: str
    """The value with the digits that its source gives."""
    block: str
    """A key of `BLOCKS`."""
    source: str
    note: str
    """What its source, or whoever checked it, says of it; may be empty."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Our variants that it can be set beside: the one whose rows it is of, where that is said.

        Nobody sets a PubMedQA score without the abstract beside these.
        """
        if self.benchmark == "pubmedqa" and _ALL_LABELLED in self.note:
            return ("pubmedqa-1000-abstract",)
        return VARIANTS_OF[self.benchmark]


@cache
def published(path: Path = FILE) -> tuple[Cell, ...]:
    """Read the cells, in the order of the file.

    Raises:
      UserError: names the line that is no cell, or repeats one.
    """
    cells: dict[tuple[str, str, str], Cell] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                cell = Cell(
                    row["model"],
                    row["benchmark"],
                    float(row["value"]),
                    row["value"],
                    row["block"],
                    row["source"],
                    row["note"],
                )
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}, line {reader.line_num}: not a cell ({error})") from None
            key = (cell.model, cell.source, cell.benchmark)
            if (
                key in cells
                or cell.benchmark not in VARIANTS_OF
                or cell.block not in BLOCKS
                or not 0 <= cell.value <= 100
                or not cell.source
            ):
                raise UserError(
                    f"{path}, line {reader.line_num}: expected a new cell with its source, a value "
                    f"in percent, a block ({', '.join(BLOCKS)}) and a benchmark "
                    f"({', '.join(VARIANTS_OF)})"
                )
            cells[key] = cell
    return tuple(cells.values())


def published_tables(
    results: Mapping[str, Any], cells: Sequence[Cell] | None = None
) -> list[Table]:
    """Return the published figures of the benchmarks of a result, and the result's own, apart.

    The tables have the same columns, one for each benchmark that was asked, in percent. One
    without a row is left out; without any published figure there is none.

    Args:
      results: as in results.json: `model`, and `benchmarks` by variant.
      cells: what is published; None: what ships with the package.
    """
    blocks, cells = results["benchmarks"], published() if cells is None else cells
    found = []
    for block, title in BLOCKS.items():
        rows = _rows([cell for cell in cells if cell.block == block], list(blocks))
        if rows:
            found.append(Table(title, ("model", *blocks, *_SOURCED), rows, _NOTES[block]))
    if not found:
        return []
    head = ("model", *(named(name, block) for name, block in blocks.items()))
    own = (str(results["model"]), *map(_measured, blocks.values()))
    return [*found, Table("Measured here", head, [own], _NOTES["own"])]


def numbered(table: Table) -> Table:
    """A table of published figures, narrow enough for a terminal: its sources are in the note."""
    if table.head[-2:] != _SOURCED:
        return table
    cited: dict[tuple[str, ...], int] = {}
    rows = [
        (f"{row[0]} [{cited.setdefault(row[-2:], len(cited) + 1)}]", *row[1:-2])
        for row in table.rows
    ]
    said = [f"[{number}] {'; '.join(filter(None, source))}" for source, number in cited.items()]
    return Table(table.title, table.head[:-2], rows, "\n".join([table.note, *said]))


_NOTES = {
    "authors": "Accuracy in percent as the authors of a model or method report it, with what they "
    "quote beside it; prompt, limit of tokens and extraction rule are of their choice. Not "
    "measured here.",
    "independent": "Accuracy in percent as others report it who ran the model themselves. Not "
    "measured here.",
    "own": "Accuracy in percent, with the 95 % interval, of this evaluation. A difference from the "
    "figures of others is no finding before prompt, rows, rule and limit are the same.",
}


def _rows(cells: Sequence[Cell], variants: Sequence[str]) -> list[tuple[str, ...]]:
    """A row for each model and source that has one of the variants."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if set(cell.variants) & set(variants):
            groups.setdefault((cell.model, cell.source), []).append(cell)
    rows = []
    for (model, source), group in groups.items():
        shown = {variant: cell.shown for cell in group for variant in cell.variants}
        notes = dict.fromkeys(cell.note for cell in group if cell.note)
        values = (shown.get(variant, NOTHING) for variant in variants)
        rows.append((model, *values, source, "; ".join(notes)))
    return rows


def _measured(block: Mapping[str, Any]) -> str:
    if block["accuracy"] is None:
        return NOTHING
    low, high = block["interval"]
    return f"{100 * block['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
