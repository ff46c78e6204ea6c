"""Metrics of a step: of what was sampled, of its updates together, and of the work in all."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alphamed_jax.config import Config
from alphamed_jax.rl.trajectories import ScoredRollouts

Metrics = dict[str, float | int | None]


def describe_rollouts(scored: ScoredRollouts) -> Metrics:
    """Metrics of what was sampled, before any update."""
    groups = scored.rewards.reshape(-1, scored.group_size)
    all_right, all_wrong = (groups == 1).all(1).mean(), (groups == 0).all(1).mean()
    return {
        "reward/mean": float(scored.rewards.mean()),
        "reward/std": float(scored.rewards.std(ddof=1)),
        "reward/no_answer": float((~scored.answered).mean()),
        "groups/effective": float(scored.effective.mean()),
        "groups/all_right": float(all_right),
        "groups/all_wrong": float(all_wrong),
        "response_length/mean": float(scored.lengths.mean()),
        "response_length/max": int(scored.lengths.max()),
        "response_length/truncated": float((~scored.finished).mean()),
        "tokens/generated": int(scored.lengths.sum()),
    }


def combine_updates(reports: Sequence[dict[str, Any]]) -> Metrics:
    """Metrics of a step from those of its updates.

    Means over the updates, but: tokens add up, maxima stay maxima, and the gap between sampler
    and trainer is the first update's, as later ones have moved away from the sampling policy. The
    norm of the gradient is the largest, NaN where one was not finite. A mean over no trained token
    is None.
    """
    merged: Metrics = {}
    for name in reports[0]:
        values = np.array([report[name] for report in reports], np.float64)
        if name == "tokens/trained":
            merged[name] = int(values.sum())
        elif name.startswith("sampler_gap"):
            merged[name] = None if np.isnan(values[0]) else float(values[0])
        elif name == "learning_rate":
            merged[name] = float(values[-1])
        elif name == "grad_norm":
            merged[name] = float(values.max())
        else:
            known = values[~np.isnan(values)]
            merged[name] = float(known.mean()) if len(known) else None
    return merged


def describe_work(
    config: Config, metrics: dict[str, Any], scored: ScoredRollouts, seconds: dict[str, float]
) -> Metrics:
    """Rounds, times and rates, from the seconds of `rollout` and `update`."""
    generated, trained = metrics["tokens/generated"], metrics["tokens/trained"]
    return {
        "rollout/rounds": len(scored.questions) // config.rollout.prompts,
        "tokens/trained_share": trained / config.update.epochs / generated,
        "time/rollout": seconds["rollout"],
        "time/update": seconds["update"],
        "time/step": seconds["rollout"] + seconds["update"],
        "throughput/generated_per_second": generated / seconds["rollout"],
        "throughput/trained_per_second": trained / seconds["update"],
    }
