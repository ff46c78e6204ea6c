"""The files of an output folder, read back for the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import read_evaluations, read_object, read_rows


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
    evaluations = read_evaluations(folder)
    if not evaluations and not (folder / "metrics.jsonl").exists():
        raise UserError(
            f"{folder}: found neither metrics.jsonl nor eval/; expected the --output folder of "
            "`python -m alphamed_jax.train`."
        )
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
        evaluations=evaluations,
        config_text=config_text,
        config=config if isinstance(config, dict) else {},
        record=read_object(record_path) if record_path.exists() else {},
    )
