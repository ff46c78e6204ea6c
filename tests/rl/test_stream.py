"""Streams: any number of requests, the same samples in every order, and slots that stay busy."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from dummy_model import TABLE, DummyModel
from helpers import mesh_like
from hypothesis import given
from hypothesis import strategies as st
from started import finish_two, free_port

from alphamed_jax.rl import buckets, prompt_cache
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.requests import Request, batches, in_parts
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.sampler_run import SamplerConfig

GROUP, PROMPTS, LONGEST, WIDTH, STOP = 4, 8, 24, 16, 3
KEY = jax.random.key(5)


def sampler(mesh="1x1", **changes):
    """Of the dummy model, in which one token in sixteen or so ends a response."""
    config = SamplerConfig(
        DummyModel(),
        Sampling(),
        (STOP,),
        max_new_tokens=LONGEST,
        prompts=PROMPTS,
        group_size=GROUP,
        max_prompt=WIDTH,
    )
    return Sampler(dataclasses.replace(config, **changes), mesh_like(mesh))


def made_requests(count, group=GROUP, seed=0, limits=None):
    """Prompts of all lengths, with ids that run on from one request to the next."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        prompt = rng.integers(0, 16, size=rng.integers(1, WIDTH + 1)).tolist()
        ids = range(number * group, (number + 1) * group)
        longest = None if limits is None else [int(x) for x in limits[number * group :][:group]]
        yield Request(prompt, ids, longest)


def by_sequence(completions):
    return {c.sequence: (c.tokens.tolist(), c.logprobs.tolist(), c.finished) for c in completions}


@functools.cache
def sampled(count=21):
    """What `sample` gives, all of a batch at once and each response in a slot of its own."""
    this, found = sampler(), {}
    groups = list(made_requests(count))
    for first in range(0, count, PROMPTS):
        part = groups[first : first + PROMPTS]
        trajectories, _ = this.sample(this.load(TABLE), part, KEY)
        names = ("tokens", "logprobs", "lengths", "finished")
        rows = dict(zip(names, (np.asarray(getattr(trajectories, n)) for n in names), strict=True))
        for row, sequence in enumerate(s for group in part for s in group.sequences):
            length = rows["lengths"][row]
            tokens, logprobs = (rows[name][row, :length].tolist() for name in names[:2])
            found[sequence] = tokens, logprobs, bool(rows["finished"][row])
    return found


@pytest.mark.parametrize(
    ("mesh", "slots", "prompts"),
    [("1x1", None, PROMPTS), ("1x1", 1, 3), ("1x1", 40, 5), ("8x1", 16, PROMPTS), ("2x4", 7, 6)],
)
def test_a_stream_samples_what_sample_does_in_any_slots_and_order_on_any_mesh(mesh, slots, prompts):
    this = sampler(mesh, slots=slots, prompts=prompts)
    weights, expected = this.load(TABLE), sampled()
    requests = list(made_requests(21))
    stream = this.stream(weights, iter(requests), KEY)
    completions = list(stream)
    assert by_sequence(completions) == expected
    # Each says which request and which of its responses it is.
    for completion in completions:
        assert divmod(completion.sequence, GROUP) == (completion.request, completion.response)
        assert completion.length == len(completion.tokens)
    # In another order they are the same,
    order = np.random.default_rng(1).permutation(21)
    assert by_sequence(this.stream(weights, (requests[i] for i in order), KEY)) == expected
    # and after a restart what is missing, of some requests nothing, is what it would have been.
    kept = {sequence for sequence in expected if sequence % 5 < 3 or sequence < 44}
    left = [
        dataclasses.replace(r, sequences=[s for s in r.sequences if s not in kept])
        for r in requests
    ]
    assert by_sequence(this.stream(weights, left, KEY)) == {
        sequence: found for sequence, found in expected.items() if sequence not in kept
    }


@pytest.mark.parametrize(("mesh", "slots"), [("1x1", None), ("8x1", 16)])
def test_batches_of_a_step_give_the_same_completions_in_order(mesh, slots):
    # Given requests of one response to as many as two groups hold, greedy and short ones, too,
    this = sampler(mesh, slots=slots)
    sizes, ids = [1, 7, 4, 8, 0, 3, 5] * 2, iter(range(1000))
    requests = [
        Request(
            request.prompt,
            sequences := [next(ids) for _ in range(size)],
            limits=[LONGEST if i % 3 else 2 for i in sequences],
            greedy=[i % 4 == 0 for i in sequences],
        )
        for request, size in zip(made_requests(len(sizes)), sizes, strict=True)
    ]
    weights = this.load(TABLE)
    # when they are sampled in batches, then each is what it is in a stream.
    completions = list(this.in_batches(weights, requests, KEY))
    asked = [(n, i) for n, size in enumerate(sizes) for i in range(size)]
    assert [(c.request, c.response) for c in completions] == asked
    assert by_sequence(completions) == by_sequence(this.stream(weights, requests, KEY))


def test_the_last_request_goes_where_a_slot_is_free():
    # Given two data shards with a slot each, of which the first is busy until the end,
    this = sampler("2x1", slots=2, prompts=2, group_size=1, stop_ids=())
    requests = list(made_requests(3, group=1, limits=[LONGEST, 2, 5]))
    # when one request is left, then it takes the slot of the second, and nobody waits.
    stream = this.stream(this.load(TABLE), requests, KEY)
    assert sorted((c.sequence, c.length) for c in stream) == [(0, LONGEST), (1, 2), (2, 5)]
    assert stream.occupancy.steps == LONGEST - 1


def test_greedy_and_sampled_responses_of_all_limits_are_one_stream():
    # Given requests with a greedy response and one that may have no token,
    this, expected = sampler(slots=6), sampled()
    requests = [
        dataclasses.replace(r, limits=[LONGEST, 0, 5, LONGEST], greedy=[False] * 3 + [True])
        for r in made_requests(21)
    ]
    found = by_sequence(this.stream(this.load(TABLE), requests, KEY))
    greedy = sampler(sampling=Sampling(temperature=1.0))
    for sequence, (tokens, logprobs, finished) in found.items():
        usual = expected[sequence]
        match sequence % GROUP:
            case 0:
                assert (tokens, logprobs, finished) == usual
            case 1:
                assert (tokens, finished) == ([], False)
            case 2:
                assert tokens == usual[0][:5]
            case 3:
                assert set(logprobs) == {0.0}
    # A greedy response depends on its prompt alone.
    alone = [Request(r.prompt, [0], greedy=[True]) for r in made_requests(21)]
    again = [
        c.tokens.tolist()
        for c in sorted(greedy.stream(greedy.load(TABLE), alone, KEY), key=lambda c: c.request)
    ]
    assert again == [found[n * GROUP + 3][0] for n in range(21)]


def test_one_request_with_many_responses_keeps_all_data_shards_busy():
    # Given eight data shards of eight slots, and one question with a response for each slot, none
    # of which ends before its longest length,
    this = sampler("8x1", slots=64, stop_ids=(16,))
    prompt = next(made_requests(1)).prompt
    stream = this.stream(this.load(TABLE), [Request(prompt, range(64))], KEY)
    completions = list(stream)
    # then all of them run at once, on all data shards: a first token comes with its slot,
    assert (stream.occupancy.steps, stream.occupancy.busy) == (LONGEST - 1, 1.0)
    assert stream.occupancy.slot_steps == 64 * (LONGEST - 1)
    # and each is told apart as the request numbers it.
    assert sorted((c.request, c.response, c.sequence) for c in completions) == [
        (0, i, i) for i in range(64)
    ]


def test_data_shards_with_less_to_do_are_dealt_the_next_prompts():
    # Given two data shards of four slots, and responses of which every second is long,
    this = sampler("2x4", slots=8, stop_ids=(16,), group_size=1)
    limits = np.tile([LONGEST, 2], 32)
    stream = this.stream(this.load(TABLE), made_requests(64, 1, limits=limits), KEY)
    assert len(list(stream)) == 64
    # then none of them runs dry while the other has a queue: by turns, one has all long ones.
    assert stream.occupancy.busy_while_waiting > 0.95


@pytest.mark.parametrize("slots", [None, 3])
def test_requests_without_responses_are_skipped_wherever_they_stand(slots):
    # Given requests of which all but two ask for nothing, the first and the last among them,
    this = sampler(slots=slots)
    weights, wanted = this.load(TABLE), (40, 77)
    requests = [
        dataclasses.replace(request, sequences=request.sequences if number in wanted else ())
        for number, request in enumerate(made_requests(100))
    ]
    for sampled_by in (this.stream, this.in_batches):
        completions = list(sampled_by(weights, iter(requests), KEY))
        # then those two have their responses, under their own numbers,
        asked = [(number, response) for number in wanted for response in range(GROUP)]
        assert sorted((c.request, c.response) for c in completions) == asked
        # and where nobody asks for anything, there is nothing to sample.
        assert list(sampled_by(weights, requests[:40], KEY)) == []


def test_caches_grow_when_a_response_fills_them_and_never_before(monkeypatch):
    expected = sampled()
    monkeypatch.setattr(buckets, "FIRST_CAPACITY", 6)
    grown, whole = [], engine.grow_cache

    def counted(state, *, capacity):
        longest = np.where(engine.active(state.slots), state.slots.length, 0).max()
        grown.append((int(longest), state.caches.keys[0].shape[2], capacity))
        return whole(state, capacity=capacity)

    monkeypatch.setattr(engine, "grow_cache", counted)
    this = sampler(slots=8)
    weights = this.load(TABLE)
    # Given responses of at most six tokens, and requests without any between them,
    requests = [
        dataclasses.replace(request, sequences=request.sequences if number % 3 else ())
        for number, request in enumerate(made_requests(20, limits=np.full(80, 6)))
    ]
    short = by_sequence(this.stream(weights, requests, KEY))
    # then the first caches, of six, do for all of them;
    assert grown == []
    # and longer ones grow them, each time as a response is past the last place.
    assert by_sequence(this.stream(weights, made_requests(21), KEY)) == expected
    assert grown == [(7, 6, 12), (13, 12, 24)]
    assert short == {
        sequence: (tokens[:6], logprobs[:6], finished and len(tokens) <= 6)
        for sequence, (tokens, logprobs, finished) in expected.items()
        if sequence // GROUP % 3 and sequence < 20 * GROUP
    }


@pytest.mark.parametrize(("sizes", "named"), [((3, 4), "3, 4"), ((0,), "0")])
def test_groups_of_unequal_size_and_of_none_are_refused_in_words(sizes, named):
    this = sampler()
    groups = [Request([1], range(size)) for size in sizes]
    with pytest.raises(ValueError, match=f"one size, at least 1, but these have {named} responses"):
        this.sample(this.load(TABLE), groups, KEY)


@given(
    st.lists(st.integers(0, 20), max_size=12), st.integers(1, 9), st.integers(1, 5), st.booleans()
)
def test_every_response_is_in_one_part_of_its_request(sizes, most, prompts, plain):
    # Given requests of any number of responses, with limits and greedy ones or without,
    ids = iter(range(1000))
    requests = [
        Request(
            [number + 1],
            sequences := [next(ids) for _ in range(size)],
            limits=None if plain else [i % 5 for i in sequences],
            greedy=None if plain else [i % 3 == 0 for i in sequences],
        )
        for number, size in enumerate(sizes)
    ]
    parts = list(in_parts(requests, most))
    # then its parts, none of them empty or too large, are the request in order,
    assert all(1 <= len(part.request.sequences) <= most for part in parts)
    for number, request in enumerate(requests):
        own = [part for part in parts if part.number == number]
        assert [part.first for part in own] == list(range(0, sizes[number], most))
        assert all(part.request.prompt == request.prompt for part in own)
        assert [s for part in own for s in part.request.sequences] == request.sequences
        if not plain:
            assert [x for part in own for x in part.request.limits] == request.limits
            assert [x for part in own for x in part.request.greedy] == request.greedy
    # and batches of a step hold them all, in groups of one size of which the rest stays empty.
    found = list(batches(iter(parts), prompts, most))
    assert [part for batch, _ in found for part in batch] == parts
    for batch, groups in found:
        assert {len(group.sequences) for group in groups} == {most}
        assert len(groups) == prompts
        asked = [len(part.request.sequences) for part in batch] + [0] * (prompts - len(batch))
        for group, count in zip(groups, asked, strict=True):
            assert group.limits[count:] == [0] * (most - count)


@pytest.mark.parametrize("prompt", [[], [1] * (WIDTH + 1)])
def test_an_empty_prompt_and_one_that_is_too_long_are_refused(prompt):
    this = sampler()
    with pytest.raises(ValueError, match=r"no prompt may be empty|takes 16 at most"):
        list(this.stream(this.load(TABLE), [Request(prompt, [0])], KEY))
    with pytest.raises(ValueError, match="max_prompt"):
        sampler(max_prompt=0).stream(this.load(TABLE), [], KEY)


def test_a_stream_of_nothing_ends_at_once():
    this = sampler()
    assert list(this.stream(this.load(TABLE), [], KEY)) == []


def long_tailed(count, longest, seed=0):
    """Lengths with a median of a sixth of the longest, and a few that are cut."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(np.log(longest / 6), 0.8, size=count), 1, longest).astype(int)


def test_slots_stay_busy_and_memory_is_flat_in_the_number_of_requests():
    # Given requests of one response each, whose lengths have a long tail, in 64 slots,
    this = sampler(slots=64, stop_ids=(16,), max_new_tokens=96, prompts=32, group_size=1)
    weights = this.load(TABLE)

    def run(count):
        limits, asked = long_tailed(count, 96), 0

        def requests():
            nonlocal asked
            for request in made_requests(count, 1, limits=limits):
                asked += 1
                yield request

        stream, done, ahead, held = this.stream(weights, requests(), KEY), 0, 0, 0
        for completion in stream:
            assert completion.length == limits[completion.sequence]
            done += 1
            ahead = max(ahead, asked - done)
            if done % 50 == 0:
                held = max(held, sum(x.nbytes for x in jax.live_arrays()))
        assert done == count
        return stream.occupancy, ahead, held

    few, many = run(500), run(2000)
    # then they are busy at least nine tenths of the time, the last tail included,
    assert many[0].busy >= 0.9
    # requests are taken as they are needed, and no more of anything is held.
    assert few[1] <= 64 + 2 * 32 + 64
    assert many[1] <= few[1] + 32
    assert many[2] <= 1.02 * few[2]


def test_streams_of_any_length_run_the_same_programs():
    this = sampler(slots=8)
    weights = this.load(TABLE)
    programs = (
        prompt_cache.prefill,
        prompt_cache.insert_prompts,
        engine.refill,
        engine.decode,
        engine.take_responses,
    )
    list(this.stream(weights, made_requests(9), KEY))
    before = [program._cache_size() for program in programs]
    for count in (1, 7, 30):
        list(this.stream(weights, made_requests(count, seed=count), KEY))
    assert [program._cache_size() for program in programs] == before


@pytest.mark.slow
def test_two_processes_stream_what_one_does(tmp_path):
    # Given two processes of four devices each, which decide for themselves and must agree,
    script = Path(__file__).with_name("streaming_process.py")
    paths = [script.parent, script.parent.parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    address = f"127.0.0.1:{free_port()}"
    both = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(process)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    # when they stream the same requests over all devices,
    for process, (status, printed, errors) in zip(both, finish_two(both), strict=True):
        assert status == 0, (process.args, errors)
        # then each is given every completion, as a single process is.
        received = json.loads(printed.splitlines()[-1])
        assert {int(s): tuple(found) for s, found in received.items()} == sampled()
