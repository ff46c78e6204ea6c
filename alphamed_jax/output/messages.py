"""What the record of a run comes to in words, on the terminal and on the page."""

import math
from collections.abc import Mapping
from typing import Any

from alphamed_jax.data.answer_key import LETTERS
from alphamed_jax.text import count

COLLAPSED, ABOVE_KEYS = 0.8, 0.3
"""Answers have collapsed on a letter that has this share of them, and so much more than the most
frequent letter has of the keys; a step of few questions may well ask for one letter by chance."""


def most_frequent_letter(metrics: Mapping[str, float | int | None]) -> str | None:
    """The letter that `answers/most_frequent` is of; None: there are no answers."""
    known = {
        letter: share
        for letter in LETTERS
        if (share := metrics.get(f"answers/{letter}")) is not None and not math.isnan(share)
    }
    return max(known, key=lambda letter: known[letter]) if known else None


def collapsed(metrics: Mapping[str, float | int | None]) -> bool:
    """Whether nearly all answers of a step are one letter although the keys are not.

    Args:
      metrics: row of `METRIC_KEYS`; of what is missing or NaN nothing is said.
    """
    most, baseline = metrics.get("answers/most_frequent"), metrics.get("answers/baseline")
    if most is None or baseline is None:
        return False
    mostly_answers = (metrics.get("reward/no_answer") or 0.0) < 0.5
    return most >= COLLAPSED and most - baseline >= ABOVE_KEYS and mostly_answers


def first_step_line(record: Mapping[str, Any]) -> str:
    """What it took until the first step was done, from the keys of `FirstStep`."""
    compiled, cached = record["programs_compiled"], record["programs_cached"]
    return (
        f"first step after {record['first_step_seconds']:.1f} s: "
        f"{count(compiled, 'program')} compiled in {record['compile_seconds']:.1f} s, "
        f"{cached:,} from the cache"
    )


def warnings_for(metrics: Mapping[str, float | int | None]) -> list[str]:
    """Name what is wrong with a step, with its cause and what to do; empty if nothing is.

    Args:
      metrics: row of `METRIC_KEYS`, as measured or as read back (NaN has become None).
    """

    def value(key: str) -> float:
        found = metrics.get(key)
        return 0.0 if found is None or math.isnan(found) else float(found)

    found: list[str] = []
    no_answer, truncated = value("reward/no_answer"), value("response_length/truncated")
    effective = value("groups/effective")
    if no_answer >= 0.5 and truncated >= 0.5:
        found.append(
            f"reward/no_answer is {no_answer:.2f} and response_length/truncated {truncated:.2f}: "
            "responses are cut before they box an answer; raise rollout.max_new_tokens"
        )
    elif no_answer >= 0.5:
        found.append(
            f"reward/no_answer is {no_answer:.2f}: responses end without one boxed letter; see "
            "`reason` in samples.jsonl, then make prompt.instruction plainer or start from an "
            "instruction-tuned model"
        )
    elif truncated >= 0.25:
        found.append(
            f"response_length/truncated is {truncated:.2f}: these responses are cut short and "
            "mostly score 0; raise rollout.max_new_tokens"
        )
    most, baseline = value("answers/most_frequent"), value("answers/baseline")
    if collapsed(metrics):
        letter = most_frequent_letter(metrics) or "one letter"
        found.append(
            f"answers/most_frequent is {most:.2f} ({letter}) and answers/baseline {baseline:.2f}: "
            "nearly all responses give one letter, whatever the question, so the reward is that of "
            "the letter; keep prompt.shuffle_options on, lower optimizer.learning_rate, or start "
            "from a model that can tell the options apart"
        )
    if effective == 0 and metrics.get("groups/effective") is not None:
        found.append(
            f"no group is effective (all right {value('groups/all_right'):.2f}, all wrong "
            f"{value('groups/all_wrong'):.2f}): the reward gives this step no gradient; choose "
            "questions that the model answers sometimes, or raise rollout.group_size"
        )
    norm = metrics.get("grad_norm")
    # Read back from JSON a missing norm and one that was not finite look alike; without an
    # effective group there may have been no update to measure.
    if (norm is None and effective > 0) or (norm is not None and not math.isfinite(norm)):
        found.append(
            "grad_norm is not finite: the update was skipped and the weights are unchanged; if it "
            "happens again, lower optimizer.learning_rate"
        )
    if (gap := value("sampler_gap/mean")) > 0.1:
        found.append(
            f"sampler_gap/mean is {gap:.2f}: sampler and trainer disagree on log-probabilities, so "
            "the gradient is not that of the policy that was sampled; try "
            "update.compute_dtype float32, and report it if the gap stays"
        )
    return found
