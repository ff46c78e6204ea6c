"""Rounds of a step: which groups are kept, that all that is theirs stays theirs, few programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, mesh_like
from hypothesis import given, settings
from hypothesis import strategies as st

from alphamed_jax.config import Config, RolloutConfig
from alphamed_jax.data.order import batch_indices
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.model.mesh import device_put_global
from alphamed_jax.rl import rounds, step
from alphamed_jax.rl.rounds import choose, merge
from alphamed_jax.rl.trajectories import Trajectories

GROUP, LENGTH = 2, 5

# Choosing


signals = st.lists(st.booleans(), min_size=4, max_size=24).map(lambda x: np.array(x, bool))


@settings(deadline=None)
@given(signals, st.integers(1, 4))
def test_groups_with_a_signal_come_first_and_all_stand_in_the_order_drawn(signal, count):
    chosen = choose(signal, count)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    with_signal, without = np.flatnonzero(signal), np.flatnonzero(~signal)
    kept = with_signal[:count]
    assert set(chosen) == {*kept, *without[: count - len(kept)]}


@settings(deadline=None)
@given(signals, st.integers(1, 4))
def test_choosing_round_by_round_is_choosing_from_all(signal, count):
    chosen = np.arange(count)
    for done in range(count, len(signal), count):
        at_hand = np.concatenate([chosen, np.arange(done, min(done + count, len(signal)))])
        chosen = at_hand[choose(signal[at_hand], count)]
    np.testing.assert_array_equal(chosen, choose(signal, count))


# Merging


def numbered(questions, mesh):
    """Trajectories in which everything tells the question it belongs to."""
    rows = np.repeat([q.token_ids[0] for q in questions], GROUP).astype(np.int32)
    rows = rows * 10 + np.arange(len(rows)) % GROUP
    tokens = np.repeat(rows[:, None], LENGTH, axis=1)
    width = max(len(q.token_ids) for q in questions)
    prompts = np.array(
        [[*q.token_ids, *[0] * (width - len(q.token_ids))] for q in questions], np.int32
    )
    lengths = np.array([len(q.token_ids) for q in questions], np.int32)
    return Trajectories(
        device_put_global(prompts, ("batch", None), mesh),
        device_put_global(lengths, ("batch",), mesh),
        device_put_global(tokens, ("batch", None), mesh),
        device_put_global(rows % LENGTH, ("batch",), mesh),
        device_put_global(-tokens.astype(np.float32), ("batch", None), mesh),
        device_put_global(rows % 3 == 0, ("batch",), mesh),
    )


def asked(number):
    """A question whose prompt starts with its number, of a length of its own."""
    question = Question(str(number), "?", ("a", "b"), "A", "made up", {})
    return Prompt(question, [number] + [1] * (number % 7 * 5))


@pytest.mark.parametrize("mesh", ["1x1", "4x2"])
def test_a_merged_batch_holds_whole_groups_of_both_with_their_prompts(mesh):
    # Given eight groups in each of two rounds,
    old, new = ([asked(n) for n in range(first, first + 8)] for first in (100, 200))
    source = np.array([0, 3, 7, 8, 9, 12, 14, 15])
    both = [(old + new)[i] for i in source]
    kept, found = (numbered(x, mesh_like(mesh)) for x in (old, new))
    # when some of each are kept,
    merged = merge(kept, found, source, [q.token_ids for q in both])
    # then the batch is the one that these questions alone would have made, laid out as before.
    expected = numbered(both, mesh_like(mesh))
    for name in ("tokens", "lengths", "logprobs", "finished", "prompt_lengths"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(expected, name), name)
        assert getattr(merged, name).sharding == getattr(kept, name).sharding
    width = expected.prompt_tokens.shape[1]
    np.testing.assert_array_equal(merged.prompt_tokens[:, :width], expected.prompt_tokens)
    assert merged.prompt_tokens.shape[1] == 32


# The rounds of a step


def run_rounds(monkeypatch, carry, max_rounds, drawn=0, mesh="4x2"):
    """`sample_rounds` on questions of which `carry` tells, in the order drawn, who has a signal."""
    prompts, questions = 4, [asked(n) for n in range(100, 140)]
    config = Config(
        rollout=RolloutConfig(
            prompts=prompts, group_size=GROUP, max_new_tokens=LENGTH, max_rounds=max_rounds
        )
    )
    order = batch_indices(config.seed, len(questions), drawn, len(carry))
    lively = {questions[i].token_ids[0] for i, signal in zip(order, carry, strict=True) if signal}
    began = []

    def sample(learner, sampler, weights, fresh, first):
        began.append(first)
        return numbered(fresh, mesh_like(mesh))

    def judge(learner, trajectories, fresh):
        signal = np.repeat([q.token_ids[0] in lively for q in fresh], GROUP)
        rows = len(fresh) * GROUP
        advantages = np.where(signal, np.tile([1.0, -1.0], len(fresh)), 0.0)
        fixed = (np.zeros(rows), np.zeros(rows, np.int32))
        return step.Outcome(
            *(np.asarray(x) for x in trajectories[2:4]),
            np.asarray(trajectories.finished),
            fixed[1],
            fixed[0],
            advantages,
            fixed[1],
            tuple(fresh),
        )

    monkeypatch.setattr(step, "sample", sample)
    monkeypatch.setattr(step, "judge", judge)
    monkeypatch.setattr(step.Sampler, "load", lambda *_: None)
    settings = step.make_settings(config, TINY, "cpu")
    learner = step.Learner(config, settings, None, (), jax.random.key(0))
    params = {"embed": jnp.zeros(1)}
    trajectories, chosen, outcome = step.sample_rounds(learner, params, questions, drawn)
    drawn_now = [questions[i].token_ids[0] for i in order[: len(outcome.questions)]]
    assert [q.token_ids[0] for q in outcome.questions] == drawn_now
    # What the update gets is, group by group, what the chosen questions sampled.
    part = outcome.part(chosen)
    np.testing.assert_array_equal(trajectories.tokens, part.tokens)
    np.testing.assert_array_equal(trajectories.lengths, part.lengths)
    np.testing.assert_array_equal(
        trajectories.prompt_tokens[:, 0], [q.token_ids[0] for q in part.questions]
    )
    assert len(part.questions) == prompts
    return began, chosen.tolist(), outcome


@pytest.mark.parametrize(
    ("carry", "max_rounds", "began", "chosen"),
    [
        # One round is all there is, whatever it carries.
        ("0000", 1, [8], [0, 1, 2, 3]),
        # A batch full of signal ends the step.
        ("1111", 3, [8], [0, 1, 2, 3]),
        # The first four with a signal, in the order drawn; what the last round has beyond is left.
        ("010010111111", 3, [8, 12], [1, 4, 6, 7]),
        ("010000101111", 3, [8, 12, 16], [1, 6, 8, 9]),
        # The cap is reached: filled up with the first groups without.
        ("010000000010", 3, [8, 12, 16], [0, 1, 2, 10]),
        ("00000000", 2, [8, 12], [0, 1, 2, 3]),
    ],
)
def test_rounds_go_on_until_enough_groups_carry_a_signal(
    monkeypatch, carry, max_rounds, began, chosen
):
    carry = [c == "1" for c in carry]
    found = run_rounds(monkeypatch, carry, max_rounds, drawn=8)
    assert found[:2] == (began, chosen)
    assert found[2].signal.tolist() == carry[: 4 * len(began)]


def test_rounds_of_any_number_share_one_program(monkeypatch):
    run_rounds(monkeypatch, [False] * 8, 2)
    programs = rounds.pick._cache_size()
    for number in (3, 6, 9):
        run_rounds(monkeypatch, [n % 5 == 1 for n in range(4 * number)], number)
    assert rounds.pick._cache_size() == programs
