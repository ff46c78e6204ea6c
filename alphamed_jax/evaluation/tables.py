"""The tables of a result, as plain text in cells: results.md and report.html show the same ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alphamed_jax.evaluation.robustness import COLUMNS, robustness_lines
from alphamed_jax.text import fixed

Block = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table with a title and what a reader needs to know of it."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    """The first cell of a row names it."""
    note: str = ""


def tables(results: Mapping[str, Any]) -> list[Table]:
    """All tables that the results of results.json fill."""
    blocks = results["benchmarks"]
    found = [
        _accuracy(results),
        _variants(blocks),
        _robustness(blocks),
        _samples(blocks),
        *(_by(name, key, block) for name, block in blocks.items() for key in block["by"]),
        _letters(blocks),
        _reasons(blocks),
        _questions(blocks),
    ]
    return [table for table in found if table.rows]


def named(name: str, block: Block) -> str:
    """Name of a benchmark that says so where only some of its rows were asked."""
    said = []
    if block["seed"] is not None:
        said.append(f"sample of {block['questions']:,} of {block['rows']:,}, seed {block['seed']}")
    if not_asked := sum(block["not_asked"].values()):
        said.append(f"{not_asked:,} not asked")
    return f"{name} ({'; '.join(said)})" if said else name


def all_blocks(blocks: Mapping[str, Block]) -> Iterator[tuple[str, Block]]:
    """Every set with its name: the benchmarks, the changed forms of each behind it."""
    for name, block in blocks.items():
        yield name, block
        for change, changed in block.get("variants", {}).items():
            yield f"{name}@{change}", changed


def share(value: float | None) -> str:
    """A share with three digits."""
    return fixed(value, ".3f")


def bounds(interval: Sequence[float] | None) -> str:
    """An interval of a share."""
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _accuracy(results: Mapping[str, Any]) -> Table:
    rows = []
    for name, block in results["benchmarks"].items():
        rows.append((named(name, block), *_measured(block)))
    blank = ("",) * 6
    asked = sum(block["asked"] for block in results["benchmarks"].values())
    rows.append(("macro: mean over benchmarks", "", share(results["macro"]), *blank))
    rows.append(("micro: over all questions", f"{asked:,}", share(results["micro"]), *blank))
    return Table(
        "Accuracy",
        (
            "benchmark",
            "asked",
            "accuracy",
            "95 % interval",
            "balanced",
            "most frequent letter",
            "no answer",
            "cut",
            "tokens",
        ),
        rows,
        "Intervals are over distinct questions: Wilson's with one response each, else clustered by "
        "question. Balanced: mean over the key's letters of the accuracy where that letter is "
        "right. Most frequent letter: what always answering it gives. No answer and cut: shares "
        "of responses. Tokens: mean of a response.",
    )


def _measured(block: Block) -> tuple[str, ...]:
    base = block["most_frequent_letter"]
    return (
        f"{block['asked']:,}",
        share(block["accuracy"]),
        bounds(block["interval"]),
        share(block["balanced_accuracy"]),
        "-" if base is None else f"{base['letter']} {base['accuracy']:.3f}",
        share(block["no_answer"]),
        share(block["truncated"]),
        fixed(block["mean_tokens"], ".1f"),
    )


def _variants(blocks: Mapping[str, Block]) -> Table:
    rows = []
    for name, block in blocks.items():
        if changed := block.get("variants"):
            rows.append((name, *_measured(block)[:4], *_measured(block)[5:6]))
            for change, one in changed.items():
                rows.append((f"{name}@{change}", *_measured(one)[:4], *_measured(one)[5:6]))
    head = ("questions", "asked", "accuracy", "95 % interval", "balanced", "no answer")
    return Table("Changed questions", head, rows)


def _robustness(blocks: Mapping[str, Block]) -> Table:
    return Table(
        "Robustness",
        ("benchmark", *COLUMNS),
        [
            (name, *row)
            for name, block in blocks.items()
            for row in robustness_lines(block.get("robustness", {}))
        ],
        "Over the questions that were asked as given and in the changed form, responses paired by "
        "question and sample number. Orders: means over them; where a letter is right, the "
        "questions as given count, too.",
    )


def _samples(blocks: Mapping[str, Block]) -> Table:
    shown = {
        name: block["samples"] for name, block in all_blocks(blocks) if block["samples"]["k"] > 1
    }
    sizes = sorted(
        {key for one in shown.values() for key in one if key.startswith("pass@")}, key=_k
    )
    rows = []
    for name, one in shown.items():
        k = one["k"]
        passes = (share(one.get(size)) for size in sizes)
        rows.append((name, f"{k}", share(one[f"mean@{k}"]), share(one[f"maj@{k}"]), *passes))
    return Table(
        "Several samples of each question",
        ("benchmark", "k", "mean@k", "maj@k", *sizes),
        rows,
        "maj@k: the most frequent letter is right; one of t letters that tie counts 1/t. pass@j: "
        "at least one of j samples is right, estimated without bias from all k.",
    )


def _k(name: str) -> int:
    return int(name.partition("@")[2])


def _by(name: str, key: str, block: Block) -> Table:
    rows = [
        (value, f"{one['questions']:,}", share(one["accuracy"]), bounds(one["interval"]))
        for value, one in block["by"][key].items()
    ]
    title = f"{name} by {key.replace('_', ' ')}"
    return Table(title, (key.replace("_", " "), "questions", "accuracy", "95 % interval"), rows)


def _letters(blocks: Mapping[str, Block]) -> Table:
    letters = sorted({letter for _, block in all_blocks(blocks) for letter in block["key"]})
    rows = []
    for name, block in all_blocks(blocks):
        for which in ("answered", "key"):
            total = sum(block[which].values())
            cells = (
                share(block[which][letter] / total) if total and letter in block[which] else "-"
                for letter in letters
            )
            rows.append((f"{name}, {which}", f"{total:,}", *cells))
    return Table(
        "Letters",
        ("benchmark", "letters", *letters),
        rows,
        "Shares of the letters that were answered, beside those that are right.",
    )


def _reasons(blocks: Mapping[str, Block]) -> Table:
    found = {reason for _, block in all_blocks(blocks) for reason in block["reasons"]}
    reasons = sorted(found, key=lambda reason: (reason != "ok", reason))
    rows = [
        (name, *(f"{block['reasons'].get(reason, 0):,}" for reason in reasons))
        for name, block in all_blocks(blocks)
    ]
    return Table("How responses were read", ("benchmark", *reasons), rows if reasons else [])


def _questions(blocks: Mapping[str, Block]) -> Table:
    rows = [
        (
            name,
            f"{block['rows']:,}",
            f"{block['questions']:,}",
            f"{block['asked']:,}",
            f"{block['distinct']:,}",
            block["fingerprint"][:12],
            block["origin"] + (f" at {block['revision']}" if block["revision"] else ""),
            "; ".join(
                [f"{count:,} not asked: {why}" for why, count in block["not_asked"].items()]
                + [f"{count:,} {what}" for what, count in block["notes"].items()]
            )
            or "-",
        )
        for name, block in all_blocks(blocks)
    ]
    return Table(
        "Which questions",
        ("benchmark", "rows", "taken", "asked", "distinct", "fingerprint", "origin", "notes"),
        rows,
        "Results can be compared where fingerprints agree: SHA-256 over stems, options and answers "
        "of the questions asked, in full in results.json.",
    )
