"""Check what the quickstart left behind: every file of the contract, and that learning happened.

python .ci/check_quickstart.py runs/quickstart
"""

import json
import sys
from pathlib import Path
from statistics import mean

FILES = (
    "config.yaml",
    "metrics.jsonl",
    "samples.jsonl",
    "report.html",
    "run.json",
    "export/config.json",
    "export/model.safetensors",
    "export/tokenizer.json",
)
FOLDERS = ("checkpoints", "eval", "tensorboard", "export")
GAIN = 0.20
"""Least rise of sampled held-out accuracy."""


def complaints(folder: Path) -> list[str]:
    """Check the folder and print what was measured; return what is wrong with it."""
    wrong = [f"{name} is missing or empty" for name in FILES if not _has_content(folder / name)]
    wrong += [f"{name}/ is missing or empty" for name in FOLDERS if not _has_files(folder / name)]
    if wrong:
        return wrong
    evaluations = sorted((folder / "eval").glob("step_*.json"))
    if evaluations[0].name != "step_000000.json" or len(evaluations) < 2:
        return [f"eval/ holds {[path.name for path in evaluations]}, not one before and one after"]
    first, last = (json.loads(evaluations[i].read_text())["sampled"] for i in (0, -1))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    effective = [row["groups/effective"] for row in rows]
    early, late = mean(effective[:5]), mean(effective[-5:])
    seconds = json.loads((folder / "run.json").read_text())["wall_seconds"]
    print(f"held-out, sampled: step 0 -> {evaluations[-1].stem}")
    for name in ("accuracy", "steps_share", "length_mean", "no_answer"):
        print(f"  {name:12} {first[name]:.3f} -> {last[name]:.3f}")
    print(f"  effective groups {early:.3f} -> {late:.3f}   ({seconds:.0f} s)")
    checks = {
        f"sampled accuracy rose by less than {GAIN}": last["accuracy"] < first["accuracy"] + GAIN,
        "responses reason in steps no more often": last["steps_share"] <= first["steps_share"],
        "responses grew no longer": last["length_mean"] <= first["length_mean"],
        "effective groups grew no fewer": late >= early,
    }
    return [text for text, failed in checks.items() if failed]


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


if __name__ == "__main__":
    found = complaints(Path(sys.argv[1]))
    sys.exit("\n".join(f"{sys.argv[1]}: {text}" for text in found) or 0)
