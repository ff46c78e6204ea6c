"""Difficulty pools: who is in which, how often each is drawn, and that all is kept on resume."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.config import CurriculumConfig
from alphamed_jax.data.curriculum import POOLS, make_pools
from alphamed_jax.data.mixture import make_mixture
from alphamed_jax.errors import UserError

USE = CurriculumConfig(pools=True)


SOURCES = ["a"] * 30 + ["b"] * 6 + ["c"] * 4


def shares(seed=0):
    """Of 40 draws 10 are of a, 20 of b, 10 of c."""
    return make_mixture(["a=1", "b=2", "c=1"], SOURCES, seed)


def run(steps, seed=0, size=40, count=8, use=USE, pools=None, first=0, shares=None):
    """Draw `steps` batches; question i is answered right in i of `size` - 1 cases."""
    pools = pools or make_pools(use, seed, size, shares)
    drawn = []
    for step in range(first, first + steps):
        indices = pools.indices(step * count, count)
        drawn.append(indices)
        pools = pools.after(indices, np.array(indices) / (size - 1))
    return pools, drawn


def test_the_running_mean_decides_the_pool():
    pools = make_pools(USE, 0, 5)
    assert [POOLS[i] for i in pools.pool_of()] == ["unseen"] * 5
    pools = pools.after([0, 1, 2, 3], np.array([0.0, 0.125, 0.5, 1.0]))
    assert [POOLS[i] for i in pools.pool_of()] == ["hard", "hard", "normal", "easy", "unseen"]
    # Half of the newest draw, half of what was before: 0.5, 0.5625, 0.25, 0.5.
    pools = pools.after([0, 1, 2, 3], np.array([1.0, 1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(pools.means[:4], [0.5, 0.5625, 0.25, 0.5])
    assert pools.begins == 8
    told = pools.describe([0, 4])
    assert [told[f"pools/{name}"] for name in POOLS] == [0.0, 0.8, 0.0, 0.2]
    assert [told[f"drawn/{name}"] for name in POOLS] == [0.0, 0.5, 0.0, 0.5]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_no_question_comes_twice_in_a_step_however_it_is_cut_into_rounds(seed, steps):
    pools, _ = run(steps, seed)
    cursor = pools.begins
    whole = pools.indices(cursor, 24)
    assert len(set(whole)) == 24
    rounds = [pools.indices(cursor + done, 8) for done in (0, 8, 16)]
    assert [i for one in rounds for i in one] == whole
    assert len(set(pools.indices(cursor, 40))) == 40


def test_a_question_is_drawn_as_often_as_its_pool_says():
    # Given one third each of hard, normal and easy questions,
    start = make_pools(USE, 1, 300)
    start = start.after(list(range(300)), np.repeat([0.0, 0.5, 1.0], 100))
    counts = Counter()
    for step in range(2000):
        pools = start.__class__(USE, 1, start.means, step)
        counts[POOLS[pools.pool_of()[pools.indices(step, 1)[0]]]] += 1
    # then they come as 0.5 : 1 : 0.25, within three standard deviations of 2000 draws.
    for name, share in (("hard", 2 / 7), ("normal", 4 / 7), ("easy", 1 / 7)):
        deviation = (share * (1 - share) / 2000) ** 0.5
        assert counts[name] / 2000 == pytest.approx(share, abs=3 * deviation)


def test_a_pool_of_weight_zero_is_drawn_only_where_nothing_else_is_left():
    use = CurriculumConfig(pools=True, easy=0.0)
    pools = make_pools(use, 0, 6).after([0, 1, 2], np.array([1.0, 1.0, 1.0]))
    assert set(pools.indices(3, 3)) == {3, 4, 5}
    assert set(pools.indices(3, 6)) == set(range(6))


@pytest.mark.parametrize("weighted", [False, True])
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 7))
def test_kept_in_a_checkpoint_and_taken_up_it_goes_on_bit_by_bit(weighted, seed, cut):
    of = shares(seed) if weighted else None
    whole, drawn = run(8, seed, shares=of)
    before, first = run(cut, seed, shares=of)
    record = json.loads(json.dumps(before.record()))
    fresh = make_pools(USE, seed, 40, of).restored(record)
    after, rest = run(8 - cut, seed, pools=fresh, first=cut)
    assert first + rest == drawn
    np.testing.assert_array_equal(after.means, whole.means)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 10, 40]))
def test_beside_weights_each_epoch_has_the_share_of_each_source_and_its_order(seed, count):
    # Given three sources in shares, and rewards that make pools of all kinds,
    _, steps = run(80 // count, seed, count=count, shares=shares(seed))
    drawn = [SOURCES[i] for step in steps for i in step]
    # then the source of each draw is that of a run without pools,
    assert drawn == [SOURCES[i] for i in shares(seed).indices(0, 80)]
    for epoch in (drawn[:40], drawn[40:]):
        assert Counter(epoch) == {"a": 10, "b": 20, "c": 10}
    # and in a step no question of a source comes again before all of it have come.
    for step in steps:
        for name in "abc":
            times = Counter(i for i in step if SOURCES[i] == name)
            least = min(times.get(i, 0) for i, source in enumerate(SOURCES) if source == name)
            assert max(times.values(), default=0) <= least + 1


def test_within_a_source_a_question_is_drawn_as_often_as_its_pool_says():
    # Given a source of easy questions beside one of as many hard, normal and easy ones,
    sources, rewards = ["a"] * 100 + ["b"] * 300, np.repeat([1.0, 0.0, 0.5, 1.0], 100)
    start = make_pools(USE, 1, 400, make_mixture(["a=1", "b=1"], sources, 1))
    start = start.after(list(range(400)), rewards)
    counts = Counter()
    for step in range(4000):
        drawn = dataclasses.replace(start, begins=step).indices(step, 1)[0]
        counts[sources[drawn], POOLS[start.pool_of()[drawn]]] += 1
    # then each has half of the draws, though all of the one are easy,
    assert counts["a", "easy"] == 2000
    # and of the other they come as 0.5 : 1 : 0.25, within three standard deviations.
    for name, share in (("hard", 2 / 7), ("normal", 4 / 7), ("easy", 1 / 7)):
        deviation = (share * (1 - share) / 2000) ** 0.5
        assert counts["b", name] / 2000 == pytest.approx(share, abs=3 * deviation)


def test_a_question_that_comes_twice_in_a_step_has_both_rewards_in_its_mean():
    pools = make_pools(USE, 0, 2).after([0, 0, 1], np.array([1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(pools.means, [0.5, 1.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hard": -1.0}, "curriculum.hard is -1.0: expected at least 0"),
        ({"easy_above": 1.5}, "curriculum.easy_above is 1.5: expected a reward, 0 to 1"),
        ({"hard_below": 0.9}, r"curriculum.hard_below \(0.9\) is above"),
        ({"newest": 0.0}, r"curriculum.newest is 0.0: expected a number in \(0, 1\]"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        CurriculumConfig(**changes)
