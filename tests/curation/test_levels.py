"""Levels: AlphaMed's with five responses, and the same ends and order with any number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.curation.levels import level_name, levels_of, read_levels
from alphamed_jax.errors import UserError


@pytest.mark.parametrize(
    ("samples", "levels"),
    [
        (1, [6, 1]),
        (2, [6, 4, 1]),
        (3, [6, 4, 3, 1]),
        (5, [6, 5, 4, 3, 2, 1]),  # the paper's
        (8, [6, 5, 5, 4, 4, 3, 3, 2, 1]),
    ],
)
def test_the_level_of_each_number_of_right_responses(samples, levels):
    assert levels_of(np.arange(samples + 1), samples).tolist() == levels


@given(st.integers(1, 300))
def test_more_right_responses_are_never_harder_and_the_ends_are_all_and_none(samples):
    levels = levels_of(np.arange(samples + 1), samples)
    assert (np.diff(levels) <= 0).all()
    assert (levels == 1).sum() == (levels == 6).sum() == 1
    assert (levels[0], levels[-1]) == (6, 1)
    # Between them the borders are 25, 50 and 75 %.
    for passes, level in enumerate(levels[1:-1].tolist(), start=1):
        assert (5 - level) * samples < 4 * passes <= (6 - level) * samples


def test_more_right_responses_than_there_are_is_a_defect():
    for passes in ([6], [-1]):
        with pytest.raises(ValueError, match="0 to 5 right responses expected"):
            levels_of(np.array(passes), 5)
    assert levels_of(np.array([], int), 5).tolist() == []


def test_levels_are_read_by_name_number_and_span():
    assert read_levels(["L1"]) == (1,)
    assert read_levels(["l5-l6,2", "L3"]) == (2, 3, 5, 6)
    assert read_levels(["1-6"]) == (1, 2, 3, 4, 5, 6)
    assert read_levels([]) == ()
    assert level_name(4) == "L4"
    for wrong in ("L7", "0", "hard", "L4-L2", "L1-"):
        with pytest.raises(UserError, match=f"levels: '{wrong}' is no level"):
            read_levels([wrong])
