"""What several samples of each question tell: mean@k, maj@k and pass@k."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from alphamed_jax.evaluation.samples import Sample


def repeats(questions: Sequence[Sequence[Sample]]) -> dict[str, float | int | None]:
    """Figures over the samples of each question, as `{"k": 4, "mean@4", "maj@4", "pass@1", ...}`.

    `k` is the number of samples, or the smallest where questions have several numbers of them.
    mean@k: mean over questions of the share of right samples. maj@k: share of questions whose most
    frequent letter is right; samples without an answer have no vote, and where t letters tie for
    most, one of them counts 1/t, which is what a fair draw among them gives on average. pass@j for
    j = 1, 2, 4, ... and k: chance that at least one of j samples is right, by the unbiased
    estimate of Chen et al. 2021 (arXiv 2107.03374) from all samples.
    """
    if not questions:
        return {"k": 0}
    k = min(map(len, questions))
    found: dict[str, float | int | None] = {
        "k": k,
        f"mean@{k}": float(np.mean([share_right(samples) for samples in questions])),
        f"maj@{k}": float(np.mean([majority(samples) for samples in questions])),
    }
    sizes = [2**power for power in range(k.bit_length()) if 2**power < k] + [k]
    counts = np.array([len(samples) for samples in questions])
    right = np.array([sum(sample.right for sample in samples) for samples in questions])
    for size in sizes:
        found[f"pass@{size}"] = float(np.mean(pass_at(size, counts, right)))
    return found


def share_right(samples: Sequence[Sample]) -> float:
    """Share of right samples of one question."""
    return sum(sample.right for sample in samples) / len(samples)


def majority(samples: Sequence[Sample]) -> float:
    """1 where the most frequent letter of a question's samples is right, 1/t where it ties."""
    votes = Counter(sample.letter for sample in samples if sample.letter is not None)
    most = max(votes.values(), default=0)
    first = [letter for letter, count in votes.items() if count == most]
    return (samples[0].question.answer in first) / len(first) if first else 0.0


def pass_at(size: int, counts: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Chance that `size` of the samples, drawn without putting back, hold a right one.

    Args:
      size: at most the smallest of `counts`.
      counts: samples of each question.
      right: right ones among them.
    """
    from scipy.stats import hypergeom

    return hypergeom.sf(0, counts, right, size)
