"""How far a measured number may be from the true one; all statistics are scipy's."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float


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


def t_interval(values: Sequence[float | int]) -> tuple[float, float]:
    """95 % confidence interval of a mean by Student's t, from independent values.

    Raises:
      ValueError: fewer than two values.
    """
    from scipy.stats import t

    if len(values) < 2:
        raise ValueError(f"expected two values or more, got {len(values)}")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / np.sqrt(len(values))
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return mean - half, mean + half


def crossed_interval(values: Float[np.ndarray, "rows columns"]) -> tuple[float, float]:
    """95 % confidence interval of the mean of a table of which rows and columns are both samples.

    As of training seeds by questions, where another seed and another question would each have
    given another number. The variance of the mean is taken as that of the row means over the
    number of rows, plus that of the column means over the number of columns. What belongs to single
    cells is counted in both, so the interval is rather too wide than too narrow (the variance
    clustered two ways of Cameron, Gelbach and Miller, JBES 2011, takes that part off again).
    Degrees of freedom by Satterthwaite (1946): of few rows as few as rows less one, if it is the
    rows that differ.

    Raises:
      ValueError: fewer than two rows or columns.
    """
    from scipy.stats import t

    if min(values.shape) < 2:
        raise ValueError(f"expected two rows and columns or more, got {values.shape}")
    mean = float(values.mean())
    parts = [
        (float(np.var(values.mean(axis=other), ddof=1)) / count, count - 1)
        for count, other in zip(values.shape, (1, 0), strict=True)
    ]
    variance = sum(part for part, _ in parts)
    if variance < 1e-24:
        return mean, mean
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    half = float(t.ppf(0.975, freedom)) * float(np.sqrt(variance))
    return mean - half, mean + half
