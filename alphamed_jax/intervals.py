"""How far a measured number may be from the true one; all statistics are scipy's."""


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
