"""Two evaluations of the same questions as plain data: differences, tests, and what flipped."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from alphamed_jax.evaluation.paired import (
    Clusters,
    bootstrap_interval,
    clustered,
    exact_mcnemar,
    holm,
    needed,
    sign_flip_test,
)
from alphamed_jax.evaluation.pairing import Evaluated, Pair, pairs_of
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.evaluation.summary import content, summarise

MCNEMAR, SIGNS = "exact McNemar", "signs of questions"


def compare_pair(
    base: Evaluated, other: Evaluated, names: Sequence[str], seed: int
) -> dict[str, Any]:
    """The comparison of two evaluations; docs/evaluation.md explains each key.

    Args:
      names: sets that both have. Holm's adjustment is over the benchmarks among them, and apart
        from these over their changed forms.
      seed: of the resampling.
    """
    sets, clusters = {}, {}
    for name in names:
        sets[name], clusters[name] = compare_set(base.sets[name], other.sets[name], seed)
    benchmarks = [name for name in names if not sets[name]["change"]]
    for family in (benchmarks, [name for name in names if sets[name]["change"]]):
        for name, adjusted in zip(family, holm([sets[name]["p"] for name in family]), strict=True):
            sets[name]["p_holm"] = adjusted
    return {
        "base": base.name,
        "other": other.name,
        "sets": sets,
        "macro": _macro(
            [sets[name] for name in benchmarks], [clusters[name] for name in benchmarks], seed
        ),
    }


def compare_set(base: Scored, other: Scored, seed: int) -> tuple[dict[str, Any], Clusters]:
    """One set of questions under both; also the differences of its questions.

    Raises:
      ValueError: see `pairs_of`.
    """
    questions = pairs_of(base, other)
    keys = [content(pairs[0][0].question) for pairs in questions]
    changes = [[int(two.right) - int(one.right) for one, two in pairs] for pairs in questions]
    clusters = clustered([float(np.mean(change)) for change in changes], keys)
    samples = min(map(len, questions))
    single = max(map(len, questions)) == 1
    better, worse = int((clusters.sums > 0).sum()), int((clusters.sums < 0).sum())
    interval = bootstrap_interval([clusters], seed)
    block = {
        "change": base.facts.change,
        "fingerprint": base.facts.fingerprint,
        "questions": len(questions),
        "distinct": len(clusters.sums),
        "samples": samples,
        "base": _side(base),
        "other": _side(other),
        "difference": clusters.mean,
        "interval": None if interval is None else list(interval),
        "test": MCNEMAR if single else SIGNS,
        "p": exact_mcnemar(better, worse) if single else sign_flip_test(clusters, seed),
        "better": better,
        "worse": worse,
        "wrong_to_right": sum(one > 0 for change in changes for one in change),
        "right_to_wrong": sum(one < 0 for change in changes for one in change),
        "needed": needed(clusters, _within(changes), samples)._asdict(),
        "tokens": _tokens(questions, keys, seed),
        "flips": _flips(questions),
    }
    return block, clusters


def _side(scored: Scored) -> dict[str, Any]:
    """What stands of one evaluation beside the difference."""
    block = summarise(scored)
    shown = ("accuracy", "interval", "no_answer", "truncated", "mean_tokens")
    return {key: block[key] for key in shown}


def _within(changes: Sequence[Sequence[int]]) -> float | None:
    """Variance of the difference between two samples of one pair, mean over questions.

    Samples of one number may share their noise, so it is that of the pairs' differences. None where
    no question has two samples.
    """
    found = [float(np.var(change, ddof=1)) for change in changes if len(change) > 1]
    return float(np.mean(found)) if found else None


def _tokens(
    questions: Sequence[Sequence[Pair]], keys: Sequence[Hashable], seed: int
) -> dict[str, Any] | None:
    """Difference of the mean tokens of a response; None where not all are known."""
    longer = []
    for pairs in questions:
        differences = [_longer(one, two) for one, two in pairs]
        known = [difference for difference in differences if difference is not None]
        if len(known) < len(pairs):
            return None
        longer.append(float(np.mean(known)))
    clusters = clustered(longer, keys)
    interval = bootstrap_interval([clusters], seed)
    return {"difference": clusters.mean, "interval": None if interval is None else list(interval)}


def _longer(one: Sample, two: Sample) -> int | None:
    return None if one.tokens is None or two.tokens is None else two.tokens - one.tokens


def _flips(questions: Sequence[Sequence[Pair]]) -> dict[str, list[dict[str, Any]]]:
    """Questions that were answered better, and worse, those that changed most in front.

    Letters are those of the samples in their order, None where there is no answer.
    """
    found: dict[str, list[dict[str, Any]]] = {"better": [], "worse": []}
    changes = [sum(int(two.right) - int(one.right) for one, two in pairs) for pairs in questions]
    for place in sorted(range(len(questions)), key=lambda place: -abs(changes[place])):
        if changes[place]:
            question = questions[place][0][0].question
            found["better" if changes[place] > 0 else "worse"].append(
                {
                    "id": question.id,
                    "answer": question.answer,
                    "base": [one.letter for one, _ in questions[place]],
                    "other": [two.letter for _, two in questions[place]],
                }
            )
    return found


def _macro(
    blocks: Sequence[dict[str, Any]], clusters: Sequence[Clusters], seed: int
) -> dict[str, Any] | None:
    """Difference of the macro means; None where there are no benchmarks, only changed forms."""
    if not blocks:
        return None
    interval = bootstrap_interval(clusters, seed)
    return {
        "benchmarks": len(blocks),
        "base": float(np.mean([block["base"]["accuracy"] for block in blocks])),
        "other": float(np.mean([block["other"]["accuracy"] for block in blocks])),
        "difference": float(np.mean([block["difference"] for block in blocks])),
        "interval": None if interval is None else list(interval),
    }
