"""Training as a user starts it: the quickstart learns, sampler and trainer agree in bfloat16."""

import json
import statistics
import sys
from pathlib import Path

from gpu_check.table import Failed, Setting

LEAST_GAIN = 0.2
"""Of sampled held-out accuracy, as .ci/check_quickstart.py has it."""
MOST_MEAN_GAP, MOST_GAP = 0.005, 0.5
"""|log-probability of sampler - trainer| in nats. On a CPU in bfloat16 it is 0.0003 on average and
0.03 at most."""


def train(*flags: str) -> None:
    """`python -m alphamed_jax.train FLAGS` in this process.

    Raises:
      Failed: it ends with another status than 0.
    """
    from alphamed_jax import train as command

    sys.argv = ["train", *flags]
    try:
        command.main()
    except SystemExit as ended:
        if ended.code:
            raise Failed(f"training ended with status {ended.code}; see its log") from None


def quickstart(setting: Setting) -> dict:
    """The embedded model, its default settings: in bfloat16 on a GPU."""
    folder = Path(setting.folder) / "run"
    # Rehearsed in a minute: fewer steps, where nothing is held to what it learns.
    short = ("--steps", "3", "--eval.questions", "16") if setting.small else ()
    train("--output", str(folder), "--no-export", *short)
    paths = sorted((folder / "eval").glob("step_*.json"))
    evaluations = [json.loads(path.read_text()) for path in paths]
    first, last = (evaluations[i] for i in (0, -1))
    record = json.loads((folder / "run.json").read_text())
    figures = {
        "sampled_before": first["sampled"]["accuracy"],
        "sampled_after": last["sampled"]["accuracy"],
        "greedy_before": first["greedy"]["accuracy"],
        "greedy_after": last["greedy"]["accuracy"],
        "steps": len(rows(folder)),
        "step_s_median": statistics.median(row["time/step"] for row in rows(folder)),
        "wall_s": record["wall_seconds"],
        "least_gain": LEAST_GAIN,
    }
    gain = figures["sampled_after"] - figures["sampled_before"]
    if not setting.small and gain < LEAST_GAIN:
        raise Failed(f"held-out accuracy rose by {gain:.2f}, not by {LEAST_GAIN}", figures)
    return figures


def sampler_gap(setting: Setting) -> dict:
    """Three steps of the quickstart in bfloat16, and what their metrics say."""
    folder = Path(setting.folder) / "run"
    flags = ("--steps", "3", "--eval.questions", "0", "--update.compute-dtype", "bfloat16")
    train("--output", str(folder), "--no-export", *flags)
    means, largest = (
        [row[f"sampler_gap/{name}"] for row in rows(folder)] for name in ("mean", "max")
    )
    figures = {
        "mean": statistics.mean(means),
        "max": max(largest),
        "bar_mean": MOST_MEAN_GAP,
        "bar_max": MOST_GAP,
    }
    if not (figures["mean"] <= MOST_MEAN_GAP and figures["max"] <= MOST_GAP):
        raise Failed(f"a gap of {figures['mean']:.3g} on average, {figures['max']:.3g}", figures)
    return figures


def rows(folder: Path) -> list[dict]:
    """A run's metrics, step by step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
