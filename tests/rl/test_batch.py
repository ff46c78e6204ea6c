"""Micro-batches: which responses are planned, and that they arrive with all that is theirs."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphamed_jax.rl.batch import gather, plan, unit_shape
from alphamed_jax.rl.rollout import Trajectories, bucket

GROUP = 4
PROMPT_LENGTHS = np.array([3, 30, 5, 17, 2])
LENGTHS = np.array([[4, 9, 1, 2], [7, 7, 7, 7], [1, 1, 1, 1], [20, 3, 3, 25], [2, 2, 2, 12]])
ADVANTAGES = np.random.default_rng(0).normal(size=(5, GROUP)).astype(np.float32)
ADVANTAGES[1] = 0.0  # the group without signal has the longest prompt


def planned(micro_batch=8, rows=1, skip_constant=True, advantages=ADVANTAGES):
    return plan(
        PROMPT_LENGTHS,
        LENGTHS,
        advantages,
        micro_batch=micro_batch,
        rows=rows,
        skip_constant=skip_constant,
    )


# Units


@settings(deadline=None)
@given(st.integers(2, 32), st.integers(1, 64), st.integers(1, 16))
def test_units_divide_the_group_and_fit_the_share_of_a_data_row(group, share, rows):
    size, per_micro = unit_shape(group, share * rows, rows)
    assert group % size == 0
    assert size <= share
    assert per_micro % rows == 0
    assert size * per_micro <= share * rows
    # The largest such part: a whole group wherever one fits.
    assert (size == group) == (group <= share)
    assert not any(group % d == 0 and d <= share for d in range(size + 1, group + 1))


def test_fewer_sequences_than_data_rows_are_refused():
    with pytest.raises(ValueError, match="micro_batch 3 is below the 4 data rows"):
        unit_shape(8, 3, 4)


# The plan


def test_groups_without_signal_are_left_out_but_count_in_the_divisors():
    without, everything = planned(), planned(skip_constant=False)
    assert sorted(without.units[without.units >= 0]) == [0, 2, 3, 4]
    assert sorted(everything.units[everything.units >= 0]) == [0, 1, 2, 3, 4]
    for layout in (without, everything):
        assert (layout.tokens, layout.sequences) == (LENGTHS.sum(), LENGTHS.size)
    # Two groups a micro-batch: one micro-batch fewer runs, in the same program.
    assert (without.count, everything.count) == (2, 3)
    assert without.units.shape == everything.units.shape == (3, 2)


def test_shapes_follow_what_is_left():
    # The longest prompt goes with its group; without skipping it counts.
    assert (planned().prompt_width, planned().width) == (24, 32)
    assert (planned(skip_constant=False).prompt_width, planned().width) == (32, 32)


def test_longest_units_come_first_and_equals_keep_their_order():
    assert planned(skip_constant=False).units.reshape(-1).tolist() == [3, 4, 0, 1, 2, -1]
    # Parts of groups are ordered by themselves: the two-response part 2p + i of group p.
    halves = planned(micro_batch=2, skip_constant=False)
    assert halves.unit_size == 2
    assert halves.units.reshape(-1).tolist() == [7, 6, 9, 0, 2, 3, 1, 8, 4, 5]


def test_a_batch_without_any_signal_needs_no_micro_batch():
    layout = planned(advantages=np.zeros_like(ADVANTAGES))
    assert layout.count == 0
    assert (layout.units == -1).all()
    assert (layout.tokens, layout.sequences) == (LENGTHS.sum(), LENGTHS.size)
    assert (layout.prompt_width, layout.width) == (16, 16)


def test_a_group_is_kept_for_a_single_nonzero_advantage():
    advantages = np.zeros_like(ADVANTAGES)
    advantages[2, 3] = -1e-20
    layout = planned(advantages=advantages)
    assert layout.units[layout.units >= 0].tolist() == [2]


def test_a_micro_batch_larger_than_the_batch_is_cut_to_it():
    layout = planned(micro_batch=4096, skip_constant=False)
    assert (layout.units.shape, layout.count) == ((1, 5), 1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    prompts=st.integers(1, 9),
    group=st.sampled_from([2, 4, 6]),
    rows=st.sampled_from([1, 2, 4]),
    share=st.integers(1, 16),
    skip_constant=st.booleans(),
)
def test_every_response_with_signal_is_planned_exactly_once(
    seed, prompts, group, rows, share, skip_constant
):
    rng = np.random.default_rng(seed)
    prompt_lengths = rng.integers(1, 100, size=prompts)
    lengths = rng.integers(1, 300, size=(prompts, group))
    advantages = rng.normal(size=(prompts, group)).astype(np.float32)
    advantages[rng.random(prompts) < 0.5] = 0.0
    layout = plan(
        prompt_lengths,
        lengths,
        advantages,
        micro_batch=share * rows,
        rows=rows,
        skip_constant=skip_constant,
    )
    used = layout.units[layout.units >= 0]
    responses = (used[:, None] * layout.unit_size + np.arange(layout.unit_size)).reshape(-1)
    signal = advantages.any(axis=1) if skip_constant else np.ones(prompts, bool)
    assert sorted(responses) == np.flatnonzero(np.repeat(signal, group)).tolist()
    # Units in use fill the first `count` micro-batches; what is left is -1.
    flat = layout.units.reshape(-1)
    assert (flat[: len(used)] >= 0).all()
    assert (flat[len(used) :] == -1).all()
    assert layout.count <= len(layout.units)
    assert layout.count == -(-len(used) // layout.units.shape[1])
    assert layout.units.shape[1] % rows == 0
    # The number of micro-batches, and with it the program, does not depend on the signal.
    parts = prompts * group // layout.unit_size
    assert len(layout.units) == -(-parts // layout.units.shape[1])
    # Widths hold what they must, and longer units come before shorter ones.
    if len(used):
        tops = lengths.reshape(-1, layout.unit_size).max(axis=1)[used]
        assert (np.diff(tops) <= 0).all()
        assert layout.width == bucket(int(tops[0]))
        owners = responses // group
        assert layout.prompt_width == bucket(int(prompt_lengths[owners].max()))


# What is gathered


@pytest.fixture(scope="module")
def trajectories():
    """Tokens that tell where they come from: 1000 x row + place, and -1 beyond the length."""
    rows, width = LENGTHS.size, 25
    place = np.arange(width)
    within = place < LENGTHS.reshape(-1, 1)
    tokens = np.where(within, 1000 * np.arange(rows)[:, None] + place, -1)
    prompts = 1000 * np.arange(len(LENGTHS))[:, None] + np.arange(32)
    return Trajectories(
        prompt_tokens=jnp.asarray(prompts),
        prompt_lengths=jnp.asarray(PROMPT_LENGTHS),
        tokens=jnp.asarray(tokens),
        lengths=jnp.asarray(LENGTHS.reshape(-1)),
        logprobs=jnp.asarray(-tokens / 7.0),
        finished=jnp.ones(rows, bool),
    )


# Two groups a micro-batch, one, half of one, a single response; and more than there is.
@pytest.mark.parametrize(
    ("micro_batch", "skip_constant"), [(8, True), (4, False), (2, True), (1, False), (64, True)]
)
def test_gather_brings_each_response_with_its_own_prompt_and_advantage(
    trajectories, micro_batch, skip_constant
):
    layout = planned(micro_batch, skip_constant=skip_constant)
    batch = gather(trajectories, ADVANTAGES, layout)
    micros, per_micro = layout.units.shape
    assert batch.tokens.shape == (micros, per_micro, layout.unit_size, layout.width)
    assert batch.prompt_tokens.shape == (micros, per_micro, layout.prompt_width)
    assert batch.old_logprobs is None
    assert batch.reference_logprobs is None
    batch = [np.asarray(x) for x in batch[:6]]
    prompt_tokens, prompt_lengths, tokens, lengths, advantages, logprobs = batch
    for m, p in np.ndindex(layout.units.shape):
        unit = layout.units[m, p]
        if unit < 0:
            # Units that fill the shape have no tokens and no advantage,
            assert (lengths[m, p] == 0).all()
            assert (advantages[m, p] == 0).all()
            assert prompt_lengths[m, p] > 0  # but a prompt, so that nothing is empty
            continue
        owner = unit * layout.unit_size // GROUP
        length = PROMPT_LENGTHS[owner]
        assert prompt_lengths[m, p] == length
        expected = 1000 * owner + np.arange(length)
        np.testing.assert_array_equal(prompt_tokens[m, p, :length], expected)
        for g in range(layout.unit_size):
            row = unit * layout.unit_size + g
            length = LENGTHS.reshape(-1)[row]
            assert lengths[m, p, g] == length
            assert advantages[m, p, g] == ADVANTAGES.reshape(-1)[row]
            expected = 1000 * row + np.arange(length)
            np.testing.assert_array_equal(tokens[m, p, g, :length], expected)
            np.testing.assert_allclose(logprobs[m, p, g, :length], -expected / 7.0, rtol=1e-6)
