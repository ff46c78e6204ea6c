"""Intervals around measured shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.intervals import wilson_interval


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
