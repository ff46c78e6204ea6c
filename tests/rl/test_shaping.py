"""Signals beside the letter: closed forms; the letter alone decides which group is effective."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import TINY, a_policy, mesh_like
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.config import Config, RewardConfig, RolloutConfig
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError
from alphamed_jax.model.mesh import device_put_global
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.shaping import (
    describe_signals,
    length_penalty,
    shaped_rewards,
    soft_overlong,
    without_truncated,
)
from alphamed_jax.rl.step import score_rewards
from alphamed_jax.rl.trajectories import Trajectories

GROUP, LONGEST = 4, 20
QUESTION = Question("q", "Which?", ("one", "two"), "B", "made_up")


def test_the_soft_overlong_punishment_is_that_of_dapo():
    # L_max 20480 and L_cache 4096, as in the paper: expected lengths of up to 16384 are free.
    lengths = np.array([1, 16384, 16385, 18432, 20479, 20480])
    expected = [0, 0, -1 / 4096, -0.5, -4095 / 4096, -1]
    np.testing.assert_allclose(soft_overlong(lengths, 20480, 4096), expected, rtol=1e-6)


def test_the_length_penalty_is_a_sigmoid_of_the_standardised_length_among_right_ones():
    # Given a group with right ones of 10, 20 and 30 tokens, whose deviation is sqrt(200 / 3),
    rewards = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0, 0], np.float32)
    lengths = np.array([10, 20, 30, 500, 7, 7, 1, 2, 3, 40, 1, 1])
    found = length_penalty(rewards, lengths, 4, 0.4).reshape(3, 4)
    one = 10 / np.sqrt(200 / 3)
    expected = -0.4 / (1 + np.exp([one, 0, -one]))
    np.testing.assert_allclose(found[0], [*expected, 0], rtol=1e-6)
    # and of equal ones, or a single one, half.
    np.testing.assert_allclose(found[1], [-0.2, -0.2, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found[2], [0, -0.2, 0, 0], rtol=1e-6)


responses = st.lists(st.tuples(st.booleans(), st.integers(0, LONGEST)), min_size=4, max_size=4)


@given(responses, st.floats(0, 0.99))
def test_a_right_response_is_always_worth_more_than_a_wrong_one_and_shorter_is_better(rows, weight):
    rewards, lengths = np.array(rows, np.float32)[:, 0], np.array(rows)[:, 1]
    use = RewardConfig(length_penalty=weight)
    found = shaped_rewards(use, rewards, lengths, group_size=GROUP, longest=LONGEST)
    right = rewards == 1
    assert (found[~right] == 0).all()
    assert (found[right] > 0).all()
    order = np.argsort(lengths[right], kind="stable")
    assert (np.diff(found[right][order]) <= 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlong_cache": 0}, "reward.overlong_cache is 0: expected at least 1"),
        ({"length_penalty": 1.0}, r"reward.length_penalty is 1.0: expected a number in \[0, 1\)"),
    ],
)
def test_a_signal_that_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        RewardConfig(**changes)


def test_a_cache_above_the_longest_response_is_refused():
    with pytest.raises(UserError, match=r"reward.overlong_cache \(30\) is above"):
        Config(reward=RewardConfig(overlong_cache=30), rollout=RolloutConfig(max_new_tokens=20))


def rolled_out(rights, lengths):
    """Trajectories of groups of four, of which some box the right letter; 20 tokens are cut."""
    words = [b"\\boxed{B}", b"\\boxed{A}", b" x", b"<end>"]
    tokens = np.full((len(rights), LONGEST), 2, np.int32)
    tokens[:, 0] = np.where(rights, 0, 1)
    lengths = np.array(lengths, np.int32)
    mesh = mesh_like("1x1")
    with jax.set_mesh(mesh):
        trajectories = Trajectories(
            prompt_tokens=device_put_global(
                np.ones((len(rights) // GROUP, 2), np.int32), (None, None), mesh
            ),
            prompt_lengths=device_put_global(
                np.full(len(rights) // GROUP, 2, np.int32), (None,), mesh
            ),
            tokens=device_put_global(tokens, (None, None), mesh),
            lengths=device_put_global(lengths, (None,), mesh),
            logprobs=device_put_global(np.zeros(tokens.shape, np.float32), (None, None), mesh),
            finished=device_put_global(lengths < LONGEST, (None,), mesh),
        )
    return trajectories, AnswerAutomaton.from_token_bytes(words)


RIGHTS = [True, True, False, False, True, True, True, True, False, False, False, False]
LENGTHS = [4, 20, 4, 20, 3, 6, 9, 20, 3, 6, 9, 20]


def scored_with(**signals):
    config = Config(
        rollout=RolloutConfig(prompts=3, group_size=GROUP, max_new_tokens=LONGEST),
        reward=RewardConfig(**signals),
    )
    trajectories, automaton = rolled_out(RIGHTS, LENGTHS)
    policy = a_policy(config, TINY, automaton=automaton)
    with jax.set_mesh(policy.mesh):
        scored = score_rewards(policy, config, trajectories, [Prompt(QUESTION, [1, 1])] * 3)
    return config, trajectories, scored


@pytest.mark.parametrize(
    "signals", [{}, {"overlong_cache": 10}, {"length_penalty": 0.5}, {"skip_truncated": True}]
)
def test_the_letter_alone_decides_who_is_effective_and_what_counts_as_reward(signals):
    # Given a mixed group, one all right and one all wrong, with lengths of all kinds,
    _, _, scored = scored_with(**signals)
    # then the mixed one alone is effective, and the others have no advantage at all.
    assert scored.rewards.tolist() == [float(right) for right in RIGHTS]
    assert scored.effective.tolist() == [True, False, False]
    assert (scored.advantages[GROUP:] == 0).all()
    assert (scored.advantages[:GROUP] != 0).any()


def test_signals_move_advantages_within_the_group_as_worked_out_by_hand():
    config, _, scored = scored_with(overlong_cache=10)
    # Learned from: 1, 1 - 1, 0, 0 - 1; mean 0, sample standard deviation sqrt(2 / 3).
    expected = np.array([1, 0, 0, -1]) / (np.sqrt(2 / 3) + 1e-6)
    np.testing.assert_allclose(scored.advantages[:GROUP], expected, atol=1e-6)
    told = describe_signals(config.reward, scored, LONGEST)
    # Six of twelve are right, four are at the limit, and 9 tokens are free.
    assert told == {
        "reward/shaped": pytest.approx(6 / 12 - 4 / 12),
        "reward/overlong": pytest.approx(-4 / 12),
        "reward/length_penalty": None,
        "loss/left_out": None,
    }
    config, _, scored = scored_with(length_penalty=0.5)
    assert scored.advantages[0] > scored.advantages[1] > scored.advantages[2]
    told = describe_signals(config.reward, scored, LONGEST)
    assert told["reward/length_penalty"] == pytest.approx(-0.25, abs=0.02)


def test_truncated_responses_have_no_tokens_in_the_loss_and_stay_in_their_group():
    config, trajectories, scored = scored_with(skip_truncated=True)
    kept, left = without_truncated(trajectories, scored)
    assert np.asarray(kept.lengths).tolist() == [4, 0, 4, 0, 3, 6, 9, 0, 3, 6, 9, 0]
    assert left.lengths.tolist() == [4, 0, 4, 0, 3, 6, 9, 0, 3, 6, 9, 0]
    np.testing.assert_array_equal(left.advantages, scored.advantages)
    assert describe_signals(config.reward, scored, LONGEST)["loss/left_out"] == pytest.approx(
        4 / 12
    )
    assert dataclasses.replace(left, lengths=scored.lengths).effective.tolist() == [
        True,
        False,
        False,
    ]
