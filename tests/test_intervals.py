"""Intervals around measured shares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem, t

from alphamed_jax.intervals import (
    clustered_interval,
    crossed_interval,
    t_interval,
    wilson_interval,
)


@given(correct=st.integers(0, 50), more=st.integers(0, 50))
def test_the_wilson_interval_holds_the_share_and_stays_a_share(correct, more):
    count = correct + more or 1
    low, high = wilson_interval(correct / count if count > correct else 1.0, count)
    assert 0.0 <= low <= high <= 1.0
    assert low <= min(1.0, correct / count) + 1e-12
    assert correct / count - 1e-12 <= high


def test_the_wilson_interval_agrees_with_a_worked_value():
    # 81 right of 263: Wilson's limits as given by Newcombe, Statistics in Medicine 1998, table I.
    low, high = wilson_interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(0.5, 0)


def test_the_clustered_interval_agrees_with_the_t_interval_of_the_means_of_equal_clusters():
    values, clusters = [1.0, 0.5, 0.25, 0.25, 0.0, 0.5], ["a", "a", "b", "b", "c", "c"]
    means = [0.75, 0.25, 0.25]
    expected = t.interval(0.95, 2, loc=np.mean(means), scale=sem(means))
    found = clustered_interval(values, clusters)
    assert found == pytest.approx((max(0.0, expected[0]), min(1.0, expected[1])))


def test_a_clustered_interval_knows_nothing_from_one_cluster_or_equal_ones():
    assert clustered_interval([0.5, 1.0], ["a", "a"]) is None
    assert clustered_interval([0.5, 0.5], ["a", "b"]) is None
    with pytest.raises(ValueError, match="0 values"):
        clustered_interval([], [])


def test_the_t_interval_is_that_of_scipy():
    values = [0.1, 0.3, 0.2]
    assert t_interval(values) == pytest.approx(t.interval(0.95, 2, loc=0.2, scale=sem(values)))
    with pytest.raises(ValueError, match="two values or more"):
        t_interval([0.1])


def test_where_only_rows_differ_the_crossed_interval_is_the_t_interval_of_their_means():
    rows = np.array([0.1, 0.3, 0.2])
    found = crossed_interval(np.tile(rows[:, None], (1, 50)))
    assert found == pytest.approx(t_interval(rows.tolist()))
    columns = np.linspace(0.0, 1.0, 50)
    found = crossed_interval(np.tile(columns, (3, 1)))
    assert found == pytest.approx(t_interval(columns.tolist()))
    assert crossed_interval(np.full((2, 2), 0.5)) == (0.5, 0.5)
    with pytest.raises(ValueError, match="two rows and columns"):
        crossed_interval(np.zeros((1, 9)))


def test_the_crossed_interval_covers_the_mean_at_least_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        table = rng.normal(size=(3, 1)) * 0.05 + rng.normal(size=60) * 0.3
        low, high = crossed_interval(table + rng.normal(size=(3, 60)) * 0.3)
        covered += low <= 0 <= high
    assert 0.95 <= covered / 400 <= 0.995
