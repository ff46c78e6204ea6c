"""Slots: responses that wait for one, caches that grow, and what none of it may change."""

import functools
import itertools

import jax
import numpy as np
import pytest
from helpers import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_rollouts import (
    GROUP,
    LENGTH,
    NO_STOP,
    PROMPTS,
    ROWS,
    SEED,
    STOPS,
    assert_same_samples,
    padded_stops,
    sample,
    sampled,
    split_weights,
    weights,
)

from alphamed_jax.rl import buckets, rollout
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl.distribution import Sampling

LIMITS = np.random.default_rng(2).integers(1, LENGTH + 1, size=ROWS)


@functools.cache
def in_slots(slots=None, mesh="1x1", refill=True):
    """Responses of many lengths, `slots` of them at a time, and how busy the slots were."""
    return rollout.roll_out(
        TINY,
        weights() if mesh == "1x1" else split_weights(mesh),
        PROMPTS,
        group_size=GROUP,
        max_new_tokens=LENGTH,
        sampling=Sampling(),
        stop_ids=STOPS,
        key=jax.random.key(3),
        slots=slots,
        refill=refill,
        limits=LIMITS,
    )


@pytest.mark.parametrize(
    ("slots", "mesh", "refill"),
    [(1, "1x1", True), (5, "1x1", True), (5, "1x1", False), (2, "2x4", True), (9, "2x4", True)],
)
def test_responses_do_not_depend_on_the_slots_they_are_decoded_in(slots, mesh, refill):
    together, _ = in_slots()
    few, occupancy = in_slots(slots, mesh, refill)
    assert_same_samples(few, together)
    # Some had to wait.
    assert occupancy.busy_while_waiting > 0


def test_a_limit_cuts_its_own_response_only():
    got, _ = in_slots()
    free = sampled()
    lengths = np.minimum(free.lengths, LIMITS)
    np.testing.assert_array_equal(got.lengths, lengths)
    np.testing.assert_array_equal(got.finished, free.finished & (free.lengths <= LIMITS))
    within = np.arange(LENGTH) < lengths[:, None]
    np.testing.assert_array_equal(got.tokens, np.where(within, free.tokens, 0))


@pytest.mark.parametrize(("mesh", "slots"), [("8x1", None), ("8x1", 16), ("1x1", 3)])
def test_what_only_fills_the_shape_takes_no_time(mesh, slots):
    # Given two prompts on eight data rows, and a response of each that is not asked for,
    params = weights() if mesh == "1x1" else split_weights(mesh)
    limits = np.array([6, 0, LENGTH, 4, 0, 5, 3, 7])
    got, occupancy = rollout.roll_out(
        TINY,
        params,
        PROMPTS[:2],
        group_size=GROUP,
        max_new_tokens=LENGTH,
        sampling=Sampling(),
        stop_ids=padded_stops(NO_STOP),
        key=jax.random.key(SEED),
        slots=slots,
        limits=limits,
    )
    # then the others are what they ever are, and those are empty,
    free = sampled(stop_ids=NO_STOP)
    np.testing.assert_array_equal(got.lengths, limits)
    within = np.arange(LENGTH) < limits[:, None]
    np.testing.assert_array_equal(got.tokens, np.where(within, free.tokens[: 2 * GROUP], 0))
    # and it takes the steps of the longest: a first token comes with its slot.
    assert occupancy.steps == LENGTH - 1


def test_a_rollout_of_nothing_but_filling_ends_at_once():
    got, occupancy = rollout.roll_out(
        TINY,
        weights(),
        PROMPTS,
        group_size=GROUP,
        max_new_tokens=LENGTH,
        sampling=Sampling(),
        stop_ids=padded_stops(STOPS),
        key=jax.random.key(SEED),
        slots=5,
        limits=np.zeros(ROWS, int),
    )
    assert (occupancy.steps, np.asarray(got.lengths).sum()) == (0, 0)


@pytest.mark.parametrize("slots", [None, 5])
def test_each_row_has_its_own_sequence_id_and_its_own_way_to_draw(slots):
    # Given rows in another order of sequence ids, every third of which is greedy,
    sequences, greedy = np.arange(ROWS)[::-1], np.arange(ROWS) % 3 == 0
    got, _ = rollout.roll_out(
        TINY,
        weights(),
        [PROMPTS[1]] * len(PROMPTS),
        group_size=GROUP,
        max_new_tokens=LENGTH,
        sampling=Sampling(),
        stop_ids=padded_stops(STOPS),
        key=jax.random.key(SEED),
        slots=slots,
        sequences=sequences,
        greedy=greedy,
    )
    # then they are what these ids draw, and what a greedy rollout gives.
    alike = {"prompts": [PROMPTS[1]] * len(PROMPTS), "slots": slots}
    drawn, best = sample(**alike), sample(**alike, sampling=Sampling(temperature=0.0))
    for name in ("tokens", "lengths", "finished"):
        by_id = np.asarray(getattr(drawn, name))[sequences]
        expected = np.where(greedy.reshape(-1, *[1] * (by_id.ndim - 1)), getattr(best, name), by_id)
        np.testing.assert_array_equal(getattr(got, name), expected, err_msg=name)


def test_caches_that_grow_and_slots_that_are_given_up_change_no_response(monkeypatch):
    # Given caches that start with room for four tokens, and a rollout that goes on in a quarter
    # of the slots, then in a quarter of those, as responses end,
    grown, kept = [], []
    for name, calls in (("grow", grown), ("keep", kept)):
        whole = getattr(engine, name)

        def counted(*args, whole=whole, calls=calls, **kwargs):
            calls.append(1)
            return whole(*args, **kwargs)

        monkeypatch.setattr(engine, name, counted)
    monkeypatch.setattr(buckets, "FIRST_CAPACITY", 4)
    monkeypatch.setattr(rollout, "FEWEST_SLOTS", 1)
    for slots in (None, 5):
        got, _ = in_slots.__wrapped__(slots)
        assert_same_samples(got, in_slots()[0])
    assert buckets.capacities(LENGTH) == [4, 8, LENGTH]
    assert len(grown) == 4
    assert len(kept) >= 3


def test_slots_are_busy_while_responses_wait():
    # Given 16 prompts with 8 responses each, whose lengths have a long tail, in 32 slots,
    rng = np.random.default_rng(0)
    limits = np.clip(rng.lognormal(2.0, 0.8, size=128), 1, 64).astype(np.int32)
    run = functools.partial(
        rollout.roll_out,
        TINY,
        weights(),
        [[1, 2, 3]] * 16,
        group_size=8,
        max_new_tokens=64,
        sampling=Sampling(),
        stop_ids=NO_STOP,
        key=jax.random.key(0),
        slots=32,
        limits=limits,
    )
    trajectories, refilled = run()
    np.testing.assert_array_equal(trajectories.lengths, limits)
    # then slots are busy while there is something to do, as they are not in plain waves,
    waves = run(refill=False)[1]
    assert refilled.busy_while_waiting > 0.85 > 1.5 * waves.busy_while_waiting
    # and there are far fewer steps.
    assert refilled.steps < 0.6 * waves.steps


@settings(deadline=None)
@given(st.data())
def test_each_response_gets_one_slot_in_order(data):
    # Given two data rows, slots of which some are at work, and a queue,
    slots = data.draw(st.integers(1, 6))
    ends = np.array(data.draw(st.tuples(*[st.integers(slots, 20)] * 2)))
    flags = st.lists(st.booleans(), min_size=slots, max_size=slots)
    working = np.array([data.draw(flags), data.draw(flags)])
    queued = np.array([data.draw(st.integers(0, end)) for end in ends])
    assigned = rollout.next_places(working, queued, ends)
    for share in range(2):
        # then free slots, and no others, take up the next of their own queue.
        taken = assigned[share][assigned[share] >= 0]
        free = (~working[share]).sum()
        assert not (working[share] & (assigned[share] >= 0)).any()
        assert taken.tolist() == list(range(queued[share], min(queued[share] + free, ends[share])))


@settings(deadline=None)
@given(st.integers(1, 100_000))
def test_caches_double_up_to_the_longest_response(length):
    sizes = buckets.capacities(length)
    assert sizes[-1] == length
    assert sizes[0] == buckets.FIRST_CAPACITY or len(sizes) == 1
    assert all(2 * small <= large for small, large in itertools.pairwise(sizes))


def test_weights_stored_output_major_give_the_same_responses():
    plain = rollout.layout_for(TINY, weights(), rollout.OUTPUT_MAJOR_ROWS + 1)
    turned = rollout.layout_for(TINY, weights(), rollout.OUTPUT_MAJOR_ROWS)
    assert (plain.output_major, turned.output_major) == (False, True)
    for sampling in (Sampling(), Sampling(top_p=0.9), Sampling(temperature=0.0)):
        got = sample(layout=plain, sampling=sampling)
        assert_same_samples(got, sample(layout=turned, sampling=sampling))
