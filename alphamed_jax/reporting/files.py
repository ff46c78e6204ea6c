"""The files of an output folder, read back for the report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import read_rows


@dataclass(frozen=True)
class RunFiles:
    """What an output folder holds."""

    name: str
    rows: list[dict[str, Any]]
    """metrics.jsonl, ascending steps."""
    samples: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    """eval/step_*.json, ascending steps."""
    config_text: str
    """config.yaml as written; empty if missing."""
    config: dict[str, Any]
    record: dict[str, Any]
    """run.json: versions, devices, mesh, model, ...; empty if missing."""


def read_run(folder: Path) -> RunFiles:
    """Read what the trainer wrote; only metrics or an evaluation must be there.

    Raises:
      UserError: the folder is not that of a run, or one of its files cannot be read.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected the --output folder of a training run."
        )
    evaluations = [_read_json(path) for path in sorted((folder / "eval").glob("step_*.json"))]
    if not evaluations and not (folder / "metrics.jsonl").exists():
        raise UserError(
            f"{folder}: found neither metrics.jsonl nor eval/; expected the --output folder of "
            "`python -m alphamed_jax.train`."
        )
    for evaluation in evaluations:
        if type(evaluation.get("step")) is not int:
            raise UserError(f"{folder}/eval: an evaluation has no whole number as `step`.")
    config_path, record_path = folder / "config.yaml", folder / "run.json"
    config_text = config_path.read_text(errors="replace") if config_path.exists() else ""
    try:
        config = yaml.safe_load(config_text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{config_path}: not YAML ({reason}); restore it.") from error
    return RunFiles(
        name=folder.resolve().name,
        rows=read_rows(folder / "metrics.jsonl"),
        samples=read_rows(folder / "samples.jsonl"),
        evaluations=sorted(evaluations, key=lambda evaluation: evaluation["step"]),
        config_text=config_text,
        config=config if isinstance(config, dict) else {},
        record=_read_json(record_path) if record_path.exists() else {},
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); delete it or restore it.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object; delete it or restore it.")
    return found
