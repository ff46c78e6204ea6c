"""Group-relative advantages against their closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alphamed_jax.rl.advantages import group_advantages

NORMALIZE = ["std", "none", "leave_one_out"]
advantages = functools.partial(jax.jit, static_argnames=("group_size", "normalize"))(
    group_advantages
)


def closed_form(rewards, normalize):
    """One group, in float64, written from the papers."""
    rewards = np.asarray(rewards, np.float64)
    if normalize == "std":  # GRPO, with the sample standard deviation
        return (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
    if normalize == "none":  # Dr. GRPO
        return rewards - rewards.mean()
    others = [np.delete(rewards, i).mean() for i in range(len(rewards))]  # RLOO
    return rewards - np.array(others)


groups_of_four = st.lists(
    st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=4, max_size=4),
    min_size=3,
    max_size=3,
)


@settings(max_examples=50)
@given(groups=groups_of_four, normalize=st.sampled_from(NORMALIZE))
def test_each_group_has_its_closed_form_whatever_the_other_groups_are(groups, normalize):
    assume(all(len(set(group)) > 1 for group in groups))
    got = advantages(jnp.asarray(groups).reshape(-1), group_size=4, normalize=normalize)
    expected = np.concatenate([closed_form(group, normalize) for group in groups])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.reshape(got, (3, 4)).sum(1), 0, atol=2e-5)


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("group_size", [2, 3, 5, 8])
def test_binary_rewards_have_their_closed_form(group_size, normalize):
    rewards = np.zeros(2 * group_size, np.float32)
    rewards[0] = 1.0  # one right in the first group,
    rewards[group_size + 1 :] = 1.0  # all but one in the second
    got = group_advantages(jnp.asarray(rewards), group_size, normalize)
    expected = [closed_form(group, normalize) for group in rewards.reshape(2, -1)]
    np.testing.assert_allclose(got, np.concatenate(expected), rtol=1e-5)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_constant_group_is_exactly_zero_even_where_its_mean_is_not_exact(normalize):
    # Given groups of seven equal values, whose float mean need not be the value,
    values = np.array([0.0, 1.0, 0.1, 1 / 3, -0.7, 1e-20, 1e6 + 0.1, 3.3e7], np.float32)
    assert any(np.mean([v] * 7, dtype=np.float32) != v for v in values)
    # when normalised, then they are exactly zero, and the groups beside them are not.
    rewards = np.concatenate([np.repeat(values, 7), np.eye(7, dtype=np.float32)[0]])
    got = np.asarray(advantages(jnp.asarray(rewards), group_size=7, normalize=normalize))
    assert (got[:-7] == 0).all()
    assert (got[-7:] != 0).all()


def test_std_uses_the_sample_deviation_and_a_floor():
    # One of two right: mean 1/2, sample deviation 1/sqrt(2).
    got = group_advantages(jnp.asarray([1.0, 0.0]), 2, "std")
    np.testing.assert_allclose(got, [0.5 / (2**-0.5 + 1e-6), -0.5 / (2**-0.5 + 1e-6)], rtol=1e-6)
    # The floor tames rewards that differ by next to nothing.
    tiny = group_advantages(jnp.asarray([1e-6, 0.0]), 2, "std")
    np.testing.assert_allclose(tiny[0], 5e-7 / (1e-6 * 2**-0.5 + 1e-6), rtol=1e-4)


def test_std_is_the_default():
    rewards = jnp.asarray([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(group_advantages(rewards, 3), group_advantages(rewards, 3, "std"))


@pytest.mark.parametrize(("rows", "group_size"), [(4, 1), (4, 0), (5, 2), (6, 4)])
def test_rows_that_do_not_form_groups_are_refused(rows, group_size):
    with pytest.raises(ValueError, match=f"{rows} rewards do not form groups of {group_size}"):
        group_advantages(jnp.zeros(rows), group_size)
