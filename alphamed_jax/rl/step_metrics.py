"""Metrics of a step: of what was sampled, of its updates together, and of the work in all."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alphamed_jax.config import Config
from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.rl.trajectories import ScoredRollouts

SOURCE_METRICS = ("reward", "length", "effective")
"""What is told of each source, in `describe_sources`."""

Metrics = dict[str, float | int | None]


def describe_rollouts(scored: ScoredRollouts) -> Metrics:
    """Metrics of what was sampled, before any update."""
    groups = scored.rewards.reshape(-1, scored.group_size)
    all_right, all_wrong = (groups == 1).all(1).mean(), (groups == 0).all(1).mean()
    return {
        "reward/mean": float(scored.rewards.mean()),
        "reward/std": float(scored.rewards.std(ddof=1)),
        "reward/no_answer": float((~scored.answered).mean()),
        **describe_answers(scored),
        "groups/effective": float(scored.effective.mean()),
        "groups/all_right": float(all_right),
        "groups/all_wrong": float(all_wrong),
        "response_length/mean": float(scored.lengths.mean()),
        "response_length/max": int(scored.lengths.max()),
        "response_length/truncated": float((~scored.finished).mean()),
        "tokens/generated": int(scored.lengths.sum()),
    }


def describe_answers(scored: ScoredRollouts) -> Metrics:
    """How often each letter is answered, beside how often the most frequent one is right.

    Shares are of the responses that hold an answer; a letter that is no option of any of the
    questions has None.
    """
    keys = np.array([prompt.question.answer_index for prompt in scored.questions])
    counts = np.bincount(scored.extracted[scored.answered], minlength=len(LETTERS))
    total, letters = int(counts.sum()), int(scored.options.max(initial=0))
    shares = [
        float(counts[i] / total) if total and i < letters else None for i in range(len(LETTERS))
    ]
    return {
        "answers/baseline": float(np.bincount(keys).max() / len(keys)),
        "answers/most_frequent": float(counts.max() / total) if total else None,
        **{f"answers/{letter}": share for letter, share in zip(LETTERS, shares, strict=True)},
    }


def describe_sources(scored: ScoredRollouts, sources: Sequence[str]) -> Metrics:
    """Reward, length and effective groups of each source, where there are several.

    Args:
      sources: names of all sources of the run; one that was not drawn has None.
    """
    if len(sources) < 2:
        return {}
    metrics: Metrics = {}
    of = np.array([prompt.question.source for prompt in scored.questions])
    size = scored.group_size
    for name in sources:
        groups = of == name
        rows = np.repeat(groups, size)
        values = scored.rewards[rows], scored.lengths[rows], scored.effective[groups]
        for key, value in zip(SOURCE_METRICS, values, strict=True):
            metrics[f"source/{name}/{key}"] = float(value.mean()) if groups.any() else None
    return metrics


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
