"""Slots: responses that wait for one, caches that grow, and what none of it may change."""

import functools
import itertools
from collections import deque

import jax
import numpy as np
import pytest
from helpers import TINY
from hypothesis import given
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

from alphamed_jax.model.mesh import mesh_of
from alphamed_jax.rl import buckets
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl import slots as scheduling
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.language_model import OUTPUT_MAJOR_ROWS, Transformer
from alphamed_jax.rl.requests import Request
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.sampler_run import SamplerConfig
from alphamed_jax.rl.slots import Waiting, take_up

LIMITS = np.random.default_rng(2).integers(1, LENGTH + 1, size=ROWS)


def sampler_of(mesh="1x1", *, stop_ids=STOPS, sampling=None, length=LENGTH, **sizes):
    """A sampler of the tiny model, and its weights."""
    params = weights() if mesh == "1x1" else split_weights(mesh)
    known = {"prompts": len(PROMPTS), "group_size": GROUP} | sizes
    sampler = Sampler(
        SamplerConfig(
            Transformer(TINY, np.dtype("float32")),
            sampling or Sampling(),
            tuple(padded_stops(stop_ids)),
            length,
            **known,
        ),
        mesh_of(params),
    )
    return sampler, sampler.load(params)


def groups_of(prompts, group, **rows):
    """Groups that run through the rows of each named value."""
    rows = {"sequences": np.arange(len(prompts) * group)} | rows
    of_group = [
        {name: values[i * group : (i + 1) * group].tolist() for name, values in rows.items()}
        for i in range(len(prompts))
    ]
    return [Request(prompt, **given) for prompt, given in zip(prompts, of_group, strict=True)]


def sample_rows(
    mesh="1x1", prompts=PROMPTS, group=GROUP, slots=None, seed=SEED, rows=None, **given
):
    """Trajectories and occupancy of rows that each have their own limit, say."""
    sampler, loaded = sampler_of(mesh, prompts=len(prompts), group_size=group, slots=slots, **given)
    return sampler.sample(loaded, groups_of(prompts, group, **rows or {}), jax.random.key(seed))


@functools.cache
def in_slots(slots=None, mesh="1x1"):
    """Responses of many lengths, `slots` of them at a time, and how busy the slots were."""
    return sample_rows(mesh, slots=slots, rows={"limits": LIMITS})


@pytest.mark.parametrize(("slots", "mesh"), [(1, "1x1"), (5, "1x1"), (2, "2x4"), (9, "2x4")])
def test_responses_do_not_depend_on_the_slots_they_are_decoded_in(slots, mesh):
    together, _ = in_slots()
    few, occupancy = in_slots(slots, mesh)
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
    # Given two prompts on eight data shards, and a response of each that is not asked for,
    limits = np.array([6, 0, LENGTH, 4, 0, 5, 3, 7])
    got, occupancy = sample_rows(
        mesh, PROMPTS[:2], slots=slots, stop_ids=NO_STOP, rows={"limits": limits}
    )
    # then the others are what they ever are, and those are empty,
    free = sampled(stop_ids=NO_STOP)
    np.testing.assert_array_equal(got.lengths, limits)
    within = np.arange(LENGTH) < limits[:, None]
    np.testing.assert_array_equal(got.tokens, np.where(within, free.tokens[: 2 * GROUP], 0))
    # and it takes the steps of the longest: a first token comes with its slot.
    assert occupancy.steps == LENGTH - 1


@pytest.mark.parametrize("slots", [None, 5])
def test_a_rollout_of_nothing_but_filling_ends_at_once(slots):
    got, occupancy = sample_rows(slots=slots, rows={"limits": np.zeros(ROWS, int)})
    assert (occupancy.steps, np.asarray(got.lengths).sum()) == (0, 0)
    assert not np.asarray(got.finished).any()


@pytest.mark.parametrize("slots", [None, 5])
def test_each_row_has_its_own_sequence_id_and_its_own_way_to_draw(slots):
    # Given rows in another order of sequence ids, every third of which is greedy,
    sequences, greedy = np.arange(ROWS)[::-1], np.arange(ROWS) % 3 == 0
    prompts = [PROMPTS[1]] * len(PROMPTS)
    got, _ = sample_rows(
        prompts=prompts, slots=slots, rows={"sequences": sequences, "greedy": greedy}
    )
    # then they are what these ids draw, and what a greedy rollout gives.
    alike = {"prompts": prompts, "slots": slots}
    drawn, best = sample(**alike), sample(**alike, sampling=Sampling(temperature=0.0))
    for name in ("tokens", "lengths", "finished"):
        by_id = np.asarray(getattr(drawn, name))[sequences]
        expected = np.where(greedy.reshape(-1, *[1] * (by_id.ndim - 1)), getattr(best, name), by_id)
        np.testing.assert_array_equal(getattr(got, name), expected, err_msg=name)


def test_caches_that_grow_and_slots_that_are_given_up_change_no_response(monkeypatch):
    expected = in_slots()[0]
    # Given caches that start with room for four tokens, and a rollout that goes on in a quarter
    # of the slots, then in a quarter of those, as responses end,
    grown, compacted = [], []
    for name, calls in (("grow_cache", grown), ("compact_slots", compacted)):
        whole = getattr(engine, name)

        def counted(*args, whole=whole, calls=calls, **kwargs):
            calls.append(1)
            return whole(*args, **kwargs)

        monkeypatch.setattr(engine, name, counted)
    monkeypatch.setattr(buckets, "FIRST_CAPACITY", 4)
    monkeypatch.setattr(scheduling, "FEWEST_SLOTS", 1)
    for slots in (None, 5):
        got, _ = in_slots.__wrapped__(slots)
        assert_same_samples(got, expected)
    assert buckets.capacities(LENGTH) == [4, 8, LENGTH]
    assert len(grown) == 4
    assert len(compacted) >= 3


def test_slots_are_busy_while_responses_wait():
    # Given 16 prompts with 8 responses each, whose lengths have a long tail, in 32 slots,
    rng = np.random.default_rng(0)
    limits = np.clip(rng.lognormal(2.0, 0.8, size=128), 1, 64).astype(np.int32)
    prompts = [[1, 2, 3]] * 16
    given = {"stop_ids": NO_STOP, "length": 64, "group": 8, "seed": 0}
    trajectories, refilled = sample_rows(
        prompts=prompts, slots=32, rows={"limits": limits}, **given
    )
    np.testing.assert_array_equal(trajectories.lengths, limits)
    # then slots are busy while there is something to do, as they are not in waves of as many,
    waves = [
        sample_rows(prompts=prompts[:4], rows={"limits": limits[first : first + 32]}, **given)[1]
        for first in range(0, 128, 32)
    ]
    steps = sum(wave.steps for wave in waves)
    busy = sum(w.busy * w.slot_steps for w in waves) / sum(w.slot_steps for w in waves)
    assert refilled.busy_while_waiting > 0.85 > 1.5 * busy
    # and there are far fewer steps.
    assert refilled.steps < 0.6 * steps


@given(st.data())
def test_each_response_gets_one_slot_in_order(data):
    # Given two data shards, slots of which some are free, and a queue of each,
    slots, most = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    flags = st.lists(st.booleans(), min_size=slots, max_size=slots)
    free = np.array([data.draw(flags), data.draw(flags)])
    counts = data.draw(st.tuples(*[st.integers(0, 8)] * 2))
    queues = [deque(Waiting(0, i, 0, 0, 1, False) for i in range(n)) for n in counts]
    before = [list(queue) for queue in queues]
    taken = take_up(free, queues, most)
    for shard in range(2):
        # then free slots, and no others, take up the next of their own queue, up to so many.
        count = min(free[shard].sum(), len(before[shard]), most)
        assert [new for _, new in taken[shard]] == before[shard][:count]
        assert list(queues[shard]) == before[shard][count:]
        assert [slot for slot, _ in taken[shard]] == np.flatnonzero(free[shard])[:count].tolist()


@given(st.integers(1, 100_000))
def test_caches_double_up_to_the_longest_response(length):
    sizes = buckets.capacities(length)
    assert sizes[-1] == length
    assert sizes[0] == buckets.FIRST_CAPACITY or len(sizes) == 1
    assert all(2 * small <= large for small, large in itertools.pairwise(sizes))


@pytest.mark.slow
def test_weights_stored_output_major_give_the_same_responses():
    for sampling in (Sampling(), Sampling(top_p=0.9), Sampling(temperature=0.0)):
        sampler, turned = sampler_of(sampling=sampling)
        with jax.set_mesh(sampler.mesh):
            plain = sampler.config.model.load(weights(), OUTPUT_MAJOR_ROWS + 1)
        assert (plain.output_major, turned.decode.output_major) == (False, True)
        found = [
            sampler.sample(loaded, groups_of(PROMPTS, GROUP), jax.random.key(SEED))[0]
            for loaded in (turned, turned._replace(decode=plain))
        ]
        assert_same_samples(*found)
