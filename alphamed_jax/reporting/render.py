"""The page of a run: what it was, how it went, what it said, how to repeat it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alphamed_jax.data.specs import published_tests
from alphamed_jax.output.messages import first_step_line, warnings_for
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.reporting.curves import curves_section
from alphamed_jax.reporting.evaluations import evaluations_section
from alphamed_jax.reporting.files import RunFiles, read_run
from alphamed_jax.reporting.html import (
    folded,
    header,
    response_article,
    warnings_section,
    whole_page,
)
from alphamed_jax.runtime.compilation import FirstStep
from alphamed_jax.text import duration, number

SAMPLES_A_STEP = 3
"""Responses shown of each of the first, middle and last step that has samples."""


def write_report(folder: Path) -> Path:
    """Write `report.html` into the output folder of a run and return its path.

    Raises:
      UserError: the folder is not that of a run, or one of its files cannot be read.
    """
    run = read_run(Path(folder))
    path = Path(folder) / "report.html"
    write_atomically(path, render(run))
    return path


def render(run: RunFiles) -> str:
    """The whole page."""
    return whole_page(
        run.name,
        [
            _header(run),
            _warnings(run.rows),
            evaluations_section(run.evaluations, run.record.get("best")),
            curves_section(run.rows),
            _samples(run.samples),
            _sources(run),
        ],
    )


def _header(run: RunFiles) -> str:
    rows, config, record = run.rows, run.config, run.record
    seconds = sum(row.get("time/step") or 0 for row in rows)
    tiles = [
        ("steps", f"{rows[-1]['step'] if rows else 0}" + _of(config.get("steps"))),
        ("reward", _from_to([row.get("reward/mean") for row in rows])),
        ("response tokens", _from_to([row.get("response_length/mean") for row in rows])),
        ("effective groups", _from_to([row.get("groups/effective") for row in rows])),
        ("tokens sampled", number(sum(row.get("tokens/generated") or 0 for row in rows))),
        ("tokens trained on", number(sum(row.get("tokens/trained") or 0 for row in rows))),
        ("time in steps", duration(seconds)),
    ]
    for way in ("greedy", "sampled"):
        accuracies = [(one.get(way) or {}).get("accuracy") for one in run.evaluations]
        if any(value is not None for value in accuracies):
            baseline = run.evaluations[-1].get("baseline")
            beside = "" if baseline is None else f" (baseline {number(baseline)})"
            tiles.insert(1, (f"held-out accuracy, {way}", _from_to(accuracies) + beside))
    facts = {
        "Configuration": record.get("name"),
        "Model": record.get("model", config.get("model")),
        "Parameters": _grouped(record.get("parameters")),
        "Data": config.get("data"),
        "Questions": record.get("questions"),
        "Published tests trained on": _tests(record, config),
        "Devices": record.get("devices"),
        "Mesh": record.get("mesh", config.get("mesh")),
        "Seed": config.get("seed"),
        "Versions": record.get("versions"),
        "Until the first step": _until_first_step(record),
        "Last start took": _wall_time(record.get("wall_seconds")),
        "Command": record.get("command"),
    }
    return header("alphamed_jax training report", run.name, tiles, facts)


def _warnings(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each cause once, with the number of steps it concerned and the newest message."""
    causes: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        for message in warnings_for({k: v for k, v in row.items() if k != "step"}):
            causes.setdefault(message.split(": ", 1)[-1], []).append((row["step"], message))
    return warnings_section(
        [
            (f"{len(found)} of {len(rows)} steps, last step {found[-1][0]}.", found[-1][1])
            for found in causes.values()
        ]
    )


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    """Responses of the first, the middle and the last step that has some."""
    steps = sorted({row["step"] for row in samples})
    if not steps:
        return ""
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    parts = []
    for step in chosen:
        rows = [row for row in samples if row["step"] == step][:SAMPLES_A_STEP]
        parts.append(f"<h3>Step {step}</h3>" + "".join(_sample(row) for row in rows))
    return f'<section class="samples"><h2>Responses</h2>{"".join(parts)}</section>'


def _sample(row: Mapping[str, Any]) -> str:
    extracted, answer = row.get("extracted"), row.get("answer")
    right = extracted is not None and extracted == answer
    found = extracted if extracted is not None else f"none ({row.get('reason', 'unknown reason')})"
    facts = [
        ("extracted", found),
        ("right answer", answer),
        ("reward", number(row.get("reward"))),
        ("advantage", number(row.get("advantage"))),
        ("", row.get("question_id")),
    ]
    return response_article(row.get("prompt"), row.get("response"), facts, right=right)


def _sources(run: RunFiles) -> str:
    parts = []
    if run.config_text:
        parts.append(folded("Resolved configuration (config.yaml)", run.config_text))
    if run.record:
        record = yaml.safe_dump(run.record, sort_keys=False, allow_unicode=True, width=100)
        parts.append(folded("Run record (run.json)", record))
    return f"<section><h2>How to repeat it</h2>{''.join(parts)}</section>" if parts else ""


def _from_to(values: Sequence[float | int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return number(known[0]) if len(known) == 1 else f"{number(known[0])} → {number(known[-1])}"


def _of(total: Any) -> str:
    return "" if total is None else f" of {total}"


def _grouped(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) else value


def _tests(record: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """The published tests among the data; a run that has not ended has no record of them yet."""
    if "trained_on_tests" in record or not config.get("allow_test_data"):
        return record.get("trained_on_tests")
    return published_tests(map(str, config.get("data") or ()))


def _wall_time(seconds: Any) -> str | None:
    return duration(seconds) if isinstance(seconds, int | float) else None


def _until_first_step(record: Mapping[str, Any]) -> str | None:
    if not all(isinstance(record.get(name), int | float) for name in FirstStep._fields):
        return None
    return first_step_line(record).removeprefix("first step after ")
