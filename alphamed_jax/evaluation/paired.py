"""Statistics of two evaluations of the same questions; docs/evaluation.md explains each.

Rows that hold the same question are one cluster: they are drawn together, and counted once.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

RESAMPLES = 9999
POWER, LEVEL = 0.8, 0.05
"""What the number of questions needed is worked out for; the test is two-sided."""
_BATCH = 500
"""Resamples in memory at once: 500 of 4,000 questions are 16 MB."""


class Clusters(NamedTuple):
    """Values of rows, added up over each distinct question."""

    sums: Float[np.ndarray, "n"]
    sizes: Float[np.ndarray, "n"]
    """Rows of each."""

    @property
    def mean(self) -> float:
        """Mean over rows."""
        return float(self.sums.sum() / self.sizes.sum())


class Needed(NamedTuple):
    """What it would take to see a difference of the size that was found."""

    questions: int | None
    """Distinct questions, with as many samples of each; None: there is no difference."""
    samples: int | None
    """Samples of each of these questions; None: not known from one, or never enough."""
    detectable: float | None
    """The smallest difference that these questions and samples show; None: nothing varies."""


def clustered(values: Sequence[float | int], keys: Sequence[Hashable]) -> Clusters:
    """Add up the values of rows with one key.

    Raises:
      ValueError: no values, or not as many keys.
    """
    if not values or len(values) != len(keys):
        raise ValueError(f"{len(values)} values for {len(keys)} keys")
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    index = np.array([places[key] for key in keys])
    # Rounded, so that shares of opposite sign add up to 0 and not to almost 0.
    sums = np.bincount(index, weights=np.asarray(values, float)).round(12)
    return Clusters(sums, np.bincount(index).astype(float))


def bootstrap_interval(benchmarks: Sequence[Clusters], seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of the mean over benchmarks of their means (for one: its mean).

    Distinct questions are drawn anew, with all rows and samples that belong to them; the questions
    of one benchmark take no part in the draws of another. Efron and Tibshirani, "An Introduction
    to the Bootstrap", 1993, chapter 13.

    Returns:
      None where a benchmark has a single distinct question.

    Raises:
      ValueError: no benchmarks.
    """
    from scipy.stats import bootstrap

    if not benchmarks:
        raise ValueError("no benchmarks")
    if any(len(clusters.sums) < 2 for clusters in benchmarks):
        return None
    means = np.zeros(RESAMPLES)
    for clusters, rng in zip(
        benchmarks, np.random.default_rng(seed).spawn(len(benchmarks)), strict=True
    ):
        means += bootstrap(
            clusters,
            lambda sums, sizes, axis: sums.sum(axis=axis) / sizes.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=_BATCH,
            method="percentile",
            rng=rng,
        ).bootstrap_distribution
    low, high = np.percentile(means / len(benchmarks), [2.5, 97.5])
    return float(low), float(high)


def exact_mcnemar(wrong_to_right: int, right_to_wrong: int) -> float:
    """Two-sided p-value: were the questions that changed as likely to change the other way?

    McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947), by the binomial distribution and not its approximation.
    """
    from scipy.stats import binomtest

    changed = wrong_to_right + right_to_wrong
    return float(binomtest(wrong_to_right, changed).pvalue) if changed else 1.0


def sign_flip_test(clusters: Clusters, seed: int) -> float:
    """Two-sided p-value of a mean difference: what if each question's had the other sign?

    Fisher's randomisation test for pairs ("The Design of Experiments", 1935, section 21), the
    pairs being distinct questions, whose samples keep together. Where each question has one
    sample it is the exact McNemar test. All signs are tried where there are no more than
    `RESAMPLES` ways, else as many are drawn, and no p-value is below 2 / (RESAMPLES + 1).
    """
    from scipy.stats import permutation_test

    changed = clusters.sums[clusters.sums != 0]
    if len(changed) < 2:  # either sign is as extreme; scipy asks for two
        return 1.0
    return float(
        permutation_test(
            (changed,),
            lambda sums, axis: sums.sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=_BATCH,
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for several tests: the chance of any false alarm stays below the level.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979): the smallest of m times m, the next times m - 1, and so on, none below one
    before it. It asks for no independence.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    ranks = sorted(range(len(p_values)), key=p_values.__getitem__)
    for left, place in zip(range(len(p_values), 0, -1), ranks, strict=True):
        highest = max(highest, min(1.0, left * p_values[place]))
        adjusted[place] = highest
    return adjusted


def questions_needed(wrong_to_right: float, right_to_wrong: float) -> int | None:
    """Questions at which McNemar's test sees a difference with 80 % power at the 5 % level.

    Connor, "Sample size for testing differences in proportions for the paired-sample design",
    Biometrics 43 (1987) 207-211: (z(1 - level/2) √ψ + z(power) √(ψ - δ²))² / δ², where ψ is the
    share of questions that change and δ the difference. At least so many that the exact test can
    alarm, if all that change do so in one way.

    Args:
      wrong_to_right, right_to_wrong: as shares of the questions.

    Returns:
      None where the difference is 0: no number is enough.
    """
    from scipy.stats import norm

    changing, difference = wrong_to_right + right_to_wrong, wrong_to_right - right_to_wrong
    if difference == 0:
        return None
    z_level, z_power = norm.ppf([1 - LEVEL / 2, POWER])
    root = z_level * math.sqrt(changing) + z_power * math.sqrt(changing - difference**2)
    alarming = math.ceil(math.log2(2 / LEVEL))  # 2 / 2^6 is below 0.05
    return max(math.ceil((root / difference) ** 2), math.ceil(alarming / changing))


def needed(clusters: Clusters, within: float | None, samples: int) -> Needed:
    """What it would take to see the difference with 80 % power at the 5 % level.

    With one sample of each question the questions are Connor's. Else they are those of Miller,
    "Adding Error Bars to Evals", arXiv 2411.00640 (section on power analysis): z² (ω² + σ²/K) / δ²
    with z = z(1 - level/2) + z(power); σ² is the variance of the difference within a question, from
    one pair of samples to the next, and ω² that between questions: what is left of the variance of
    their means.

    Args:
      clusters: differences, each a mean over the samples of a question.
      within: σ², None where there is one sample of each question.
      samples: K.
    """
    from scipy.stats import norm

    count = len(clusters.sums)
    if count < 2:
        return Needed(None, None, None)
    means, difference = clusters.sums / clusters.sizes, clusters.mean
    variance = float(np.var(means, ddof=1))
    z = float(norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER))
    detectable = z * math.sqrt(variance / count) if variance > 0 else None
    if difference == 0:
        return Needed(None, None, detectable)
    if samples == 1 or within is None:
        shares = float(np.mean(means > 0)), float(np.mean(means < 0))
        return Needed(questions_needed(*shares), None, detectable)
    between = max(0.0, variance - within / samples)
    room = count * difference**2 / z**2 - between
    return Needed(
        questions=max(2, math.ceil(z**2 * variance / difference**2)),
        samples=max(1, math.ceil(within / room)) if room > 0 else None,
        detectable=detectable,
    )
