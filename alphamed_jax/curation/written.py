"""The files of a check, which hold every finding, and its counts on the terminal."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from alphamed_jax.curation import defects
from alphamed_jax.curation.cleaned import clean_rows
from alphamed_jax.curation.findings import CONTRADICTING, Cleaned, Findings
from alphamed_jax.curation.overlap import EXACT, KINDS, NEAR
from alphamed_jax.evaluation.registry import VARIANTS
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.terminal.display import warn
from alphamed_jax.terminal.tables import text_table
from alphamed_jax.text import count, shorten_middle

FILES = ("report.json", "overlaps.jsonl", "duplicates.jsonl", "defects.jsonl")
CLEAN_FILES = ("clean.jsonl", "removed.jsonl")
SHOWN = 300
"""Characters of a text in a file of findings."""


def write_findings(folder: Path, found: Findings, cleaned: Cleaned | None) -> None:
    """Write the files, each replaced whole; the report last, for it says that all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILES[0]).unlink(missing_ok=True)
    _write_lines(folder / "overlaps.jsonl", _overlap_rows(found))
    _write_lines(folder / "duplicates.jsonl", _duplicate_rows(found))
    bad = chain.from_iterable(one.defects for one in found.read)
    _write_lines(folder / "defects.jsonl", map(asdict, bad))
    if cleaned is not None:
        _write_lines(folder / "clean.jsonl", clean_rows(found, cleaned))
        _write_lines(folder / "removed.jsonl", map(asdict, cleaned.removed))
    text = json.dumps(found.report(cleaned), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / FILES[0], text + "\n")


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, one after the other: 200,000 of them need no memory."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row, default=str) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _overlap_rows(found: Findings) -> Iterator[dict[str, Any]]:
    for one in found.compared.overlaps:
        item, other = found.items[one.item], found.others[one.other]
        benchmark = found.benchmark_of(one.other)
        yield {
            "kind": one.kind,
            "score": one.score,
            "characters": one.characters,
            "id": item.question.id,
            "source": item.question.source,
            "place": item.place,
            "benchmark": benchmark,
            "benchmark_id": other.question.id,
            "text": shorten_middle(item.text, SHOWN),
            # Its authors ask that a gated benchmark be shown nowhere.
            "benchmark_text": None if _gated(benchmark) else shorten_middle(other.text, SHOWN),
        }


def _duplicate_rows(found: Findings) -> Iterator[dict[str, Any]]:
    for one in found.compared.duplicates:
        item, first = found.items[one.item], found.items[one.first]
        yield {
            "kind": one.kind,
            "score": one.score,
            "same_answer": one.same_answer,
            "id": item.question.id,
            "source": item.question.source,
            "place": item.place,
            "first_id": first.question.id,
            "first_source": first.question.source,
            "first_place": first.place,
            "text": shorten_middle(item.text, SHOWN),
            "first_text": shorten_middle(first.text, SHOWN),
        }


def _gated(variant: str) -> bool:
    return variant in VARIANTS and VARIANTS[variant][0].gated


def show_findings(console: Console, folder: Path, found: Findings, cleaned: Cleaned | None) -> None:
    """Print the counts, and where the rest is."""
    report = found.report(cleaned)
    head = ("benchmark", "its questions", "found in the data", "exact", "near", "64 characters")
    rows: list[Sequence[str]] = [
        (
            name,
            f"{one['questions']:,}",
            f"{one['questions_found']:,}",
            *(f"{one['overlaps'][kind]:,}" for kind in KINDS),
        )
        for name, one in report["benchmarks"].items()
    ]
    if rows:
        console.print(text_table("Overlap with benchmarks, in pairs", head, rows))
    bad = [(defects.KINDS[kind], f"{n:,}") for kind, n in report["defects"].items() if n]
    if bad:
        console.print(text_table("Defects", ("what", "rows"), bad))
    repeated = report["duplicates"]
    console.print(
        f"{count(report['rows'], 'row')}, {count(report['questions'], 'question')}: "
        f"{report['overlapping_questions']:,} overlap with a benchmark, "
        f"{report['duplicate_questions']:,} repeat another ({repeated[EXACT]:,} exact, "
        f"{repeated[NEAR]:,} near pairs), {repeated[CONTRADICTING]:,} pairs contradict each other, "
        f"{count(report['defective_rows'], 'row')} with defects."
    )
    for line in report["warnings"]:
        warn(console, line)
    if cleaned is not None:
        console.print(
            f"kept {count(len(cleaned.kept), 'question')}, removed {len(cleaned.removed):,}"
            + "".join(f", {n:,} {reason}" for reason, n in cleaned.counts.items())
        )
    names = FILES if cleaned is None else (*FILES, *CLEAN_FILES)
    console.print(f"{folder}: {', '.join(names)}")
