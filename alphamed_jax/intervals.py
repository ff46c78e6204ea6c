"""How far a measured number may be from the true one; all statistics are scipy's."""

from collections.abc import Hashable, Sequence

import numpy as np


def wilson_interval(share: float | int, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share observed in `count` independent trials.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    Unlike the normal approximation it stays within [0, 1] and has a width at 0 and 1.

    Args:
      share: of successes; where each trial is a mean itself (several samples of a question),
        the nearest whole number of successes stands for it.

    Raises:
      ValueError: count is below 1 or share outside [0, 1].
    """
    # Imported where it is needed: it takes half a second.
    from scipy.stats import binomtest

    if count < 1 or not 0.0 <= share <= 1.0:
        raise ValueError(f"expected a share of at least one trial, got {share} of {count}")
    found = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def clustered_interval(
    values: Sequence[float | int], clusters: Sequence[Hashable]
) -> tuple[float, float] | None:
    """95 % confidence interval of the mean of shares of which those of a cluster go together.

    Student's t on the cluster-robust standard error of Miller, "Adding Error Bars to Evals",
    arXiv 2411.00640, equation 4, with the usual correction C / (C - 1) for C clusters; with
    clusters of one size it is the t interval of their means. Cut to [0, 1].

    Args:
      values: shares within [0, 1], as the mean over the samples of a question.
      clusters: which cluster each belongs to.

    Returns:
      None where the standard error is 0 or there is a single cluster: the values then say nothing
      about how far their mean may be off.

    Raises:
      ValueError: no values, or not as many clusters.
    """
    from scipy.stats import t

    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values for {len(clusters)} clusters")
    mean = float(np.mean(values))
    sums: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    count = len(sums)
    if count < 2:
        return None
    squares = float(np.sum(np.square(list(sums.values()))))
    error = np.sqrt(squares * count / (count - 1)) / len(values)
    if error < 1e-12:
        return None
    low, high = t.interval(0.95, count - 1, loc=mean, scale=error)
    return max(0.0, float(low)), min(1.0, float(high))
