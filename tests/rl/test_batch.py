"""Micro-batches: which responses are made, and that they arrive with all that is theirs."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import gathered, mesh_like
from hypothesis import given, settings
from hypothesis import strategies as st

from alphamed_jax.errors import UserError
from alphamed_jax.rl.batch import (
    check_micro_batch,
    pack_rows,
    packed_sources,
    plan_batch,
    row_counts,
    row_width,
)
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.trajectories import Trajectories

GROUP = 4
PROMPT_LENGTHS = np.array([3, 30, 5, 17, 2])
LENGTHS = np.array([[4, 9, 1, 2], [7, 7, 7, 7], [1, 1, 1, 1], [20, 3, 3, 25], [2, 2, 2, 12]])
ADVANTAGES = np.random.default_rng(0).normal(size=(5, GROUP)).astype(np.float32)
ADVANTAGES[1] = 0.0  # the ineffective group has the longest prompt


def planned(micro_batch=8, data_shards=1, only_effective=True, advantages=ADVANTAGES, **options):
    return plan_batch(
        PROMPT_LENGTHS,
        LENGTHS,
        advantages,
        micro_batch=micro_batch,
        data_shards=data_shards,
        only_effective=only_effective,
        **options,
    )


def in_use(made):
    """Prompt and responses of each prompt group in use, in order."""
    segments = made.responses.shape[-1]
    return [
        (int(p), sorted(int(row) for row in rows if row >= 0))
        for p, rows in zip(made.prompts.flat, made.responses.reshape(-1, segments), strict=True)
        if p >= 0
    ]


# Packing and units


@given(st.integers(2, 32), st.integers(1, 64), st.integers(1, 16))
def test_rows_of_a_prompt_group_are_few_kinds_that_divide_the_group_and_fit_a_data_row(
    group, share, rows
):
    counts = row_counts(group, share * rows, rows)
    assert 1 <= len(counts) <= 3
    assert all(group % n == 0 and n <= share for n in counts)
    # The largest is a whole group wherever one fits.
    assert (counts[0] == group) == (group <= share)
    assert not any(group % d == 0 and d <= share for d in range(counts[0] + 1, group + 1))


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_rows_hold_what_they_must_in_one_of_few_widths(needed, longest):
    needed = min(needed, longest)
    width = row_width(needed, longest)
    assert width >= needed
    # A quarter of it would not do, but where it is the least there is.
    assert width == 16 or width // 4 < needed
    assert len({row_width(n, longest) for n in range(1, longest + 1)}) <= 5


def test_fewer_rows_than_data_shards_are_refused():
    with pytest.raises(ValueError, match="micro_batch 3 is below the 4 data shards"):
        row_counts(8, 3, 4)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=16), st.integers(0, 100))
def test_rows_hold_every_response_once_and_are_not_overfull(lengths, spare):
    lengths, width = np.array(lengths), max(lengths) + spare
    rows = pack_rows(lengths, width)
    assert sorted(r for row in rows for r in row) == list(range(len(lengths)))
    fill = [lengths[row].sum() for row in rows]
    assert max(fill) <= width
    # First-fit never leaves two rows that would fit into one.
    assert all(a + b > width for i, a in enumerate(fill) for b in fill[i + 1 :])


# The plan


def test_ineffective_groups_are_left_out_but_count_in_the_divisors():
    for pack in (False, True):
        without, everything = planned(pack=pack), planned(only_effective=False, pack=pack)
        assert {p for p, _ in in_use(without)} == {0, 2, 3, 4}
        assert {p for p, _ in in_use(everything)} == {0, 1, 2, 3, 4}
        for made in (without, everything):
            assert (made.tokens, made.sequences) == (LENGTHS.sum(), LENGTHS.size)
    # Two whole groups a micro-batch: one micro-batch fewer runs, in the same program.
    without, everything = planned(pack=False), planned(only_effective=False, pack=False)
    assert (without.count, everything.count) == (2, 3)
    assert without.prompts.shape == everything.prompts.shape == (3, 2)


def test_short_responses_share_rows_and_a_group_its_prompt():
    # Given rows of 32 tokens, as the longest response has 25,
    made = planned()
    assert (made.width, made.packed) == (32, True)
    # then a group of 16, 4 or 18 tokens lies in one row; 25 + 3 + 3 and 20 need two: prompt groups
    # of two rows, four in a micro-batch, have the least tokens to compute.
    assert (made.rows, made.count) == (2, 1)
    groups = [(p, [4 * p, 4 * p + 1, 4 * p + 2, 4 * p + 3]) for p in (0, 2, 3, 4)]
    assert in_use(made) == groups
    # Side by side in a row, the longest first.
    assert made.starts[0, 0].tolist() == [0, 9, 13, 15]
    assert made.starts[0, 2].tolist() == [0, 25, 28, 32]
    # A micro-batch of one row cuts that group in two.
    assert in_use(planned(micro_batch=1))[2:4] == [(3, [13, 14, 15]), (3, [12])]
    # Without packing each response has a row, without sharing also a prompt.
    apart = planned(pack=False)
    assert (apart.packed, apart.rows, len(in_use(apart))) == (False, 4, 4)
    alone = planned(pack=False, share_prompts=False)
    assert (alone.packed, alone.rows, len(in_use(alone))) == (False, 1, 16)


def test_shapes_follow_what_is_left():
    # The longest prompt goes with its group; without skipping it counts.
    assert (planned().prompt_width, planned().width) == (24, 32)
    assert (planned(only_effective=False).prompt_width, planned().width) == (32, 32)


def test_a_batch_without_effective_groups_needs_no_micro_batch():
    made = planned(advantages=np.zeros_like(ADVANTAGES))
    assert made.count == 0
    assert (made.prompts == -1).all()
    assert (made.tokens, made.sequences) == (LENGTHS.sum(), LENGTHS.size)
    assert (made.prompt_width, made.width) == (16, 16)


def test_a_group_is_kept_for_a_single_nonzero_advantage():
    advantages = np.zeros_like(ADVANTAGES)
    advantages[2, 3] = -1e-20
    assert [p for p, _ in in_use(planned(advantages=advantages))] == [2]


def test_a_micro_batch_larger_than_the_batch_is_cut_to_it():
    made = planned(micro_batch=4096, only_effective=False, pack=False)
    assert (made.prompts.shape, made.count) == ((1, 5), 1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    prompts=st.integers(1, 9),
    group=st.sampled_from([2, 4, 6]),
    data_shards=st.sampled_from([1, 2, 4]),
    share=st.integers(1, 16),
    only_effective=st.booleans(),
    pack=st.booleans(),
)
def test_every_response_of_an_effective_group_is_planned_exactly_once(
    seed, prompts, group, data_shards, share, only_effective, pack
):
    rng = np.random.default_rng(seed)
    prompt_lengths = rng.integers(1, 100, size=prompts)
    lengths = rng.integers(1, 300, size=(prompts, group))
    advantages = rng.normal(size=(prompts, group)).astype(np.float32)
    advantages[rng.random(prompts) < 0.5] = 0.0
    made = plan_batch(
        prompt_lengths,
        lengths,
        advantages,
        micro_batch=share * data_shards,
        data_shards=data_shards,
        only_effective=only_effective,
        pack=pack,
    )
    groups = in_use(made)
    effective = advantages.any(axis=1) if only_effective else np.ones(prompts, bool)
    rows_used = sorted(row for _, segments in groups for row in segments)
    assert rows_used == np.flatnonzero(np.repeat(effective, group)).tolist()
    assert all(row // group == p for p, segments in groups for row in segments)
    # Those in use fill the first `count` micro-batches; what is left is -1.
    flat = made.prompts.reshape(-1)
    assert (flat[: len(groups)] >= 0).all()
    assert (flat[len(groups) :] == -1).all()
    assert made.count <= len(made.prompts)
    assert made.count == -(-len(groups) // made.prompts.shape[1])
    assert made.prompts.shape[1] % data_shards == 0
    # Widths hold what they must.
    if groups:
        assert made.width == row_width(int(lengths[effective].max()), int(lengths.max()))
        assert made.prompt_width == bucket(int(prompt_lengths[effective].max()))
    # No place of a prompt group is taken twice.
    sources = packed_sources(made, lengths.reshape(-1))
    assert sources.shape == (*made.prompts.shape, made.rows, made.width)
    assert (sources >= 0).sum() == lengths.reshape(-1)[rows_used].sum()


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
    ("micro_batch", "only_effective", "pack"),
    [(8, True, True), (4, False, False), (2, True, True), (1, False, False), (64, True, True)],
)
def test_gather_brings_each_response_with_its_own_prompt_and_advantage(
    trajectories, micro_batch, only_effective, pack
):
    made = planned(micro_batch, only_effective=only_effective, pack=pack)
    batch = gathered(trajectories, LENGTHS, ADVANTAGES, made)
    micros, per_micro, segments = made.responses.shape
    assert batch.tokens.shape == (micros, per_micro, segments, made.width)
    assert batch.prompt_tokens.shape == (micros, per_micro, made.prompt_width)
    assert batch.old_logprobs is None
    assert batch.reference_logprobs is None
    prompt_tokens, prompt_lengths, tokens, lengths, advantages, logprobs = map(
        np.asarray, batch[:6]
    )
    for m, p in np.ndindex(made.prompts.shape):
        owner = made.prompts[m, p]
        if owner < 0:
            # Units that fill the shape have no tokens and no advantage,
            assert (lengths[m, p] == 0).all()
            assert (advantages[m, p] == 0).all()
            assert prompt_lengths[m, p] > 0  # but a prompt, so that nothing is empty
            continue
        length = PROMPT_LENGTHS[owner]
        assert prompt_lengths[m, p] == length
        expected = 1000 * owner + np.arange(length)
        np.testing.assert_array_equal(prompt_tokens[m, p, :length], expected)
        in_rows = None
        if batch.packing is not None:
            source = np.asarray(batch.packing.source[m, p]).reshape(-1)
            in_rows = np.where(source >= 0, tokens[m, p].reshape(-1)[source], -1)
        for g, row in enumerate(made.responses[m, p]):
            if row < 0:
                assert lengths[m, p, g] == 0
                continue
            length = LENGTHS.reshape(-1)[row]
            assert lengths[m, p, g] == length
            assert advantages[m, p, g] == ADVANTAGES.reshape(-1)[row]
            expected = 1000 * row + np.arange(length)
            np.testing.assert_array_equal(tokens[m, p, g, :length], expected)
            np.testing.assert_allclose(logprobs[m, p, g, :length], -expected / 7.0, rtol=1e-6)
            if in_rows is not None:
                start = made.starts[m, p, g]
                np.testing.assert_array_equal(in_rows[start : start + length], expected)


def test_a_micro_batch_without_a_row_for_each_data_row_is_refused_by_mesh_and_number():
    check_micro_batch(8, mesh_like("8x1"))
    check_micro_batch(4, mesh_like("2x2x2"))
    with pytest.raises(
        UserError, match=r"micro_batch \(4\) is below the 8 data shards of --mesh 8x1:"
    ):
        check_micro_batch(4, mesh_like("8x1"))
    with pytest.raises(UserError, match=r"\(3\) is below the 4 data shards of --mesh 2x2x2:"):
        check_micro_batch(3, mesh_like("2x2x2"))
