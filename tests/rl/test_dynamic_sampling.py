"""Dynamic sampling: which groups are kept, that all that is theirs stays theirs, few programs."""

import jax
import numpy as np
import pytest
from helpers import mesh_like
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.model.mesh import device_put_global
from alphamed_jax.rl.dynamic_sampling import (
    pick_rows,
    sample_rounds,
    select_groups,
    take_groups,
)
from alphamed_jax.rl.trajectories import ScoredRollouts, Trajectories, response_fields

GROUP, LENGTH = 2, 5

# Selecting


effective_groups = st.lists(st.booleans(), min_size=4, max_size=24).map(lambda x: np.array(x, bool))


@given(effective_groups, st.integers(1, 4))
def test_effective_groups_come_first_and_all_stand_in_the_order_drawn(effective, count):
    chosen = select_groups(effective, count)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    with_gradient, without = np.flatnonzero(effective), np.flatnonzero(~effective)
    kept = with_gradient[:count]
    assert set(chosen) == {*kept, *without[: count - len(kept)]}


@given(effective_groups, st.integers(1, 4))
def test_selecting_round_by_round_is_selecting_from_all(effective, count):
    chosen = np.arange(count)
    for done in range(count, len(effective), count):
        at_hand = np.concatenate([chosen, np.arange(done, min(done + count, len(effective)))])
        chosen = at_hand[select_groups(effective[at_hand], count)]
    np.testing.assert_array_equal(chosen, select_groups(effective, count))


# Taking


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
        prompt_tokens=device_put_global(prompts, ("batch", None), mesh),
        prompt_lengths=device_put_global(lengths, ("batch",), mesh),
        tokens=device_put_global(tokens, ("batch", None), mesh),
        lengths=device_put_global(rows % LENGTH, ("batch",), mesh),
        logprobs=device_put_global(-tokens.astype(np.float32), ("batch", None), mesh),
        finished=device_put_global(rows % 3 == 0, ("batch",), mesh),
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
    with jax.set_mesh(mesh_like(mesh)):
        tokens = [q.token_ids for q in both]
        merged = take_groups(kept, found, source, tokens, mesh_like(mesh))
    # then the batch is the one that these questions alone would have made, laid out as before.
    expected = numbered(both, mesh_like(mesh))
    for name in ("tokens", "lengths", "logprobs", "finished", "prompt_lengths"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(expected, name), name)
        assert getattr(merged, name).sharding == getattr(kept, name).sharding
    width = expected.prompt_tokens.shape[1]
    np.testing.assert_array_equal(merged.prompt_tokens[:, :width], expected.prompt_tokens)
    assert merged.prompt_tokens.shape[1] == 32


# The rounds of a step


def run_rounds(flags, max_rounds, mesh="4x2"):
    """`sample_rounds` on questions of which `flags` tell, in the order drawn, who is effective."""
    prompts, questions, layout = 4, [asked(n) for n in range(100, 140)], mesh_like(mesh)
    began = []

    def sample_round(done):
        began.append(done)
        trajectories = numbered(questions[done : done + prompts], layout)
        effective = np.repeat(flags[done : done + prompts], GROUP)
        rows = prompts * GROUP
        found = response_fields(trajectories)
        scored = ScoredRollouts(
            questions=tuple(questions[done : done + prompts]),
            **{name: np.asarray(found[name]) for name in ("tokens", "lengths", "finished")},
            extracted=np.zeros(rows, np.int32),
            rewards=np.where(effective, np.tile([1.0, 0.0], prompts), 0.0),
            advantages=np.where(effective, np.tile([1.0, -1.0], prompts), 0.0),
            options=np.zeros(rows, np.int32),
        )
        return trajectories, scored

    with jax.set_mesh(layout):
        trajectories, chosen, sampled = sample_rounds(sample_round, prompts, max_rounds, layout)
    assert sampled.questions == tuple(questions[: len(sampled.questions)])
    # What the update gets is, group by group, what the chosen questions sampled.
    batch = sampled.take_groups(chosen)
    np.testing.assert_array_equal(trajectories.tokens, batch.tokens)
    np.testing.assert_array_equal(trajectories.lengths, batch.lengths)
    np.testing.assert_array_equal(
        trajectories.prompt_tokens[:, 0], [q.token_ids[0] for q in batch.questions]
    )
    np.testing.assert_array_equal(trajectories.prompt_lengths, batch.prompt_lengths)
    assert len(batch.questions) == prompts
    return began, chosen.tolist(), sampled


@pytest.mark.parametrize(
    ("flags", "max_rounds", "began", "chosen"),
    [
        # One round is all there is, whatever it holds.
        ("0000", 1, [0], [0, 1, 2, 3]),
        # A batch full of effective groups ends the step.
        ("1111", 3, [0], [0, 1, 2, 3]),
        # The first four effective ones, in the order drawn; what the last round has beyond is left.
        ("010010111111", 3, [0, 4], [1, 4, 6, 7]),
        ("010000101111", 3, [0, 4, 8], [1, 6, 8, 9]),
        # The cap is reached: filled up with the first groups without.
        ("010000000010", 3, [0, 4, 8], [0, 1, 2, 10]),
        ("00000000", 2, [0, 4], [0, 1, 2, 3]),
    ],
)
def test_rounds_go_on_until_enough_groups_are_effective(flags, max_rounds, began, chosen):
    flags = [c == "1" for c in flags]
    found = run_rounds(flags, max_rounds)
    assert found[:2] == (began, chosen)
    assert found[2].effective.tolist() == flags[: 4 * len(began)]


def test_rounds_of_any_number_share_one_program():
    run_rounds([False] * 8, 2)
    programs = pick_rows._cache_size()
    for number in (3, 6, 9):
        run_rounds([n % 5 == 1 for n in range(4 * number)], number)
    assert pick_rows._cache_size() == programs
