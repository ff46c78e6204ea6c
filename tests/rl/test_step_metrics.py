"""Metrics of a step against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.rl.advantages import group_advantages
from alphamed_jax.rl.step_metrics import describe_rollouts, describe_sources
from alphamed_jax.rl.trajectories import ScoredRollouts

QUESTION = Question("q", "Which?", ("one", "two"), "B", "made_up")


@pytest.mark.parametrize("normalize", ["std", "none", "leave_one_out"])
def test_groups_and_responses_are_counted_as_by_hand(normalize):
    # Given four groups of two, of which one is all right, one all wrong and two have both,
    rewards = np.array([1, 1, 0, 0, 1, 0, 0, 1], np.float32)
    lengths = np.array([2, 2, 2, 2, 2, 2, 2, 6])
    scored = ScoredRollouts(
        questions=(Prompt(QUESTION, [1, 2]),) * 4,
        tokens=np.zeros((8, 6), np.int32),
        lengths=lengths,
        finished=lengths < 6,
        extracted=np.array([1, 1, 0, -1, 1, 2, 0, 1], np.int32),
        rewards=rewards,
        advantages=np.asarray(group_advantages(jnp.asarray(rewards), 2, normalize)),
        options=np.full(8, 2, np.int32),
    )
    assert describe_rollouts(scored) == {
        "reward/mean": 0.5,
        "reward/std": pytest.approx((8 * 0.25 / 7) ** 0.5),
        "reward/no_answer": 0.25,
        "answers/baseline": 1.0,
        "answers/most_frequent": pytest.approx(2 / 3),
        "answers/A": pytest.approx(1 / 3),
        "answers/B": pytest.approx(2 / 3),
        **{f"answers/{letter}": None for letter in "CDEFGHIJ"},
        "groups/effective": 0.5,
        "groups/all_right": 0.25,
        "groups/all_wrong": 0.25,
        "response_length/mean": 2.5,
        "response_length/max": 6,
        "response_length/truncated": 0.125,
        "tokens/generated": 20,
    }
    # Effective groups are those that the update learns from.
    assert scored.effective.tolist() == [False, False, True, True]


def test_each_of_several_sources_is_told_of_by_itself_and_one_alone_is_not():
    # Given two groups of source a, one of b, and a source c that was not drawn,
    prompts = [
        Prompt(Question(f"q{i}", "Which?", ("one", "two"), "B", source), [1])
        for i, source in enumerate("aba")
    ]
    rewards = np.array([1, 0, 1, 1, 0, 0], np.float32)
    scored = ScoredRollouts(
        questions=tuple(prompts),
        tokens=np.zeros((6, 4), np.int32),
        lengths=np.array([1, 3, 2, 2, 4, 4]),
        finished=np.ones(6, bool),
        extracted=np.array([1, 0, 1, 1, 0, 0], np.int32),
        rewards=rewards,
        advantages=np.zeros(6, np.float32),
        options=np.full(6, 2, np.int32),
    )
    assert describe_sources(scored, ["a"]) == {}
    assert describe_sources(scored, ["a", "b", "c"]) == {
        "source/a/reward": 0.25,
        "source/a/length": 3.0,
        "source/a/effective": 0.5,
        "source/b/reward": 1.0,
        "source/b/length": 2.0,
        "source/b/effective": 0.0,
        "source/c/reward": None,
        "source/c/length": None,
        "source/c/effective": None,
    }
    assert scored.group_rewards.tolist() == [0.5, 1.0, 0.0]
