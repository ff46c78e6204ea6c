"""The sampler: what a row draws, where it ends, and what a decode step costs."""

import dataclasses
import functools
import itertools

import hlo
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tiny_rollouts import (
    GROUP,
    LENGTH,
    NO_STOP,
    PROMPTS,
    ROWS,
    STOPS,
    response_logits,
    sample,
    sampled,
    split_weights,
    weights,
    whole_rows,
)

from alphamed_jax.model import llama
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl import rollout
from alphamed_jax.rl.decode import decode, decode_layout, prefill
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.rollout import bucket, pad_prompts


def assert_same_samples(got, expected, rows=slice(None)):
    for name in ("tokens", "lengths", "finished"):
        np.testing.assert_array_equal(
            getattr(got, name), getattr(expected, name)[rows], err_msg=name
        )
    np.testing.assert_allclose(got.logprobs, expected.logprobs[rows], atol=1e-4)


# Which noise a row gets


def test_a_row_alone_samples_what_it_samples_in_a_batch():
    # Given responses of a batch of prompts of many lengths,
    batch = sampled()
    for row in (0, 5, 10, 15):
        # when one of them is sampled alone, under its own sequence id,
        alone = sample(prompts=[PROMPTS[row // GROUP]], group_size=1, first_sequence=row)
        # then it is the same.
        assert_same_samples(alone, batch, slice(row, row + 1))


@pytest.mark.parametrize("mesh", ["8x1", "2x4"])
def test_samples_are_the_same_on_any_mesh(mesh):
    # Four prompts on eight data rows are filled up with four more, which are left off again.
    split = sampled(mesh)
    assert split.tokens.shape == (ROWS, LENGTH)
    assert split.prompt_tokens.shape[0] == len(PROMPTS)
    assert_same_samples(split, sampled())


def test_two_runs_agree_and_two_steps_or_seeds_differ():
    first = sampled()
    assert_same_samples(sample(), first)
    # The next step has other sequence ids, so even the same prompts get other noise.
    next_step = sample(first_sequence=ROWS)
    other_seed = sample(seed=4)
    for other in (next_step, other_seed):
        assert (np.asarray(other.tokens) != first.tokens).any(axis=1).mean() > 0.9


def test_responses_of_a_group_differ():
    for group in np.asarray(sampled().tokens).reshape(-1, GROUP, LENGTH):
        assert len({row.tobytes() for row in group}) == GROUP


# Where a row ends


def cut_at(free, stop_ids):
    """Tokens, lengths and finished of free-running responses, cut after their first stop id."""
    tokens = np.array(free.tokens)
    lengths = np.full(len(tokens), tokens.shape[1])
    finished = np.isin(tokens, stop_ids).any(axis=1)
    lengths[finished] = np.isin(tokens, stop_ids).argmax(axis=1)[finished] + 1
    tokens[np.arange(tokens.shape[1]) >= lengths[:, None]] = 0
    return tokens, lengths, finished


def assert_cut(got, free, stop_ids):
    tokens, lengths, finished = cut_at(free, stop_ids)
    np.testing.assert_array_equal(got.tokens, tokens)
    np.testing.assert_array_equal(got.lengths, lengths)
    np.testing.assert_array_equal(got.finished, finished)
    within = np.arange(tokens.shape[1]) < lengths[:, None]
    assert (np.asarray(got.logprobs)[~within] == 0).all()
    np.testing.assert_allclose(
        np.asarray(got.logprobs)[within], np.asarray(free.logprobs)[within], atol=1e-6
    )


def test_a_row_that_meets_no_stop_id_is_truncated_and_not_finished():
    free = sampled(stop_ids=NO_STOP)
    assert (np.asarray(free.lengths) == LENGTH).all()
    assert not np.asarray(free.finished).any()


def test_a_response_ends_with_its_first_stop_id_which_counts():
    free = sampled(stop_ids=NO_STOP)
    stopped = sampled()
    assert_cut(stopped, free, STOPS)
    # The batch has rows of both kinds.
    assert 0 < np.asarray(stopped.finished).sum() < ROWS


def test_each_of_several_stop_ids_ends_a_row():
    # Given stop ids that rows are known to draw, at different times,
    free = sampled(stop_ids=NO_STOP)
    stop_ids = sorted({int(free.tokens[row, row % 7 + 1]) for row in range(0, ROWS, 2)})
    assert len(stop_ids) > 3
    together = sample(stop_ids=stop_ids)
    assert_cut(together, free, stop_ids)
    ends = np.asarray(together.tokens)[np.arange(ROWS), np.asarray(together.lengths) - 1]
    assert len(set(ends[np.asarray(together.finished)])) > 3
    # when one of them stands alone, then it ends its rows as well.
    for stop in stop_ids[:3]:
        assert_cut(sample(stop_ids=[stop]), free, [stop])


def test_a_stop_id_as_first_token_gives_a_response_of_length_one():
    free = sampled(stop_ids=NO_STOP)
    firsts = sorted({int(token) for token in free.tokens[:, 0]})
    stopped = sample(stop_ids=firsts)
    assert (np.asarray(stopped.lengths) == 1).all()
    assert np.asarray(stopped.finished).all()
    np.testing.assert_array_equal(stopped.tokens[:, 0], free.tokens[:, 0])


def test_a_stop_id_that_is_also_the_padding_ends_a_row_like_any_other():
    # Given a model that likes token 0, which also fills prompts and finished rows,
    params = weights() | {"embed": weights()["embed"].at[0].multiply(4.0)}
    free = sample(params, stop_ids=NO_STOP)
    assert (np.asarray(free.tokens) == 0).any(axis=1).sum() > 3
    # when it is no stop id, then it is an ordinary token: nothing ends.
    assert (np.asarray(free.lengths) == LENGTH).all()
    # When it is, then the first one ends the row and counts, and prompts with a 0 are unharmed.
    assert_cut(sample(params, stop_ids=[0]), free, [0])


def test_decoding_stops_when_all_rows_are_done(monkeypatch):
    # Given a sampler whose draws are counted, in a program that no other test compiles,
    steps, draw, length = [], engine.draw, LENGTH - 1

    def counted(*args, **kwargs):
        jax.debug.callback(lambda: steps.append(1))
        return draw(*args, **kwargs)

    monkeypatch.setattr(engine, "draw", counted)

    def run(stop_ids):
        steps.clear()
        result = sample(
            prompts=[PROMPTS[0]], group_size=2, max_new_tokens=length, stop_ids=stop_ids
        )
        jax.block_until_ready(result)
        jax.effects_barrier()
        return len(steps), np.asarray(result.tokens), np.asarray(result.lengths)

    # when nothing stops, then there are as many draws as tokens;
    draws, tokens, _ = run(NO_STOP)
    assert draws == length
    # when both first tokens are stop ids, then one draw;
    assert run(tokens[:, 0].tolist())[0] == 1
    # and otherwise as many as the longest row has tokens.
    draws, _, lengths = run([int(tokens[0, 2]), int(tokens[1, 5])])
    assert draws == lengths.max() < length


# What it samples from


@pytest.fixture(scope="module")
def plain_logprobs():
    """Log-probabilities of all tokens at each place of the free-running responses."""
    rows, starts = whole_rows(sampled(stop_ids=NO_STOP))
    return np.asarray(jax.nn.log_softmax(response_logits(weights(), rows, starts)))


def test_logprobs_are_those_of_a_plain_forward_pass(plain_logprobs):
    free = sampled(stop_ids=NO_STOP)
    tokens = np.asarray(free.tokens)
    expected = np.take_along_axis(plain_logprobs, tokens[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(free.logprobs, expected, atol=1e-4)
    # The model is sharp enough for this to mean something.
    assert expected.std() > 0.5


def test_draws_follow_the_model_and_are_independent_from_token_to_token(plain_logprobs):
    # Given where each token lies in the model's cumulative distribution, spread over its share,
    tokens = np.asarray(sampled(stop_ids=NO_STOP).tokens)[..., None]
    chance = np.exp(plain_logprobs.astype(np.float64))
    below = np.take_along_axis(chance.cumsum(-1) - chance, tokens, axis=2)[..., 0]
    share = np.take_along_axis(chance, tokens, axis=2)[..., 0]
    places = below + share * np.random.default_rng(0).random(share.shape)
    # then these places are uniform,
    assert stats.kstest(places.reshape(-1), "uniform").pvalue > 1e-3
    # and do not tell of those of the next token, nor of the next row.
    for now, then in ((places[:, :-1], places[:, 1:]), (places[:-1], places[1:])):
        assert abs(np.corrcoef(now.reshape(-1), then.reshape(-1))[0, 1]) < 0.2


def test_greedy_is_the_argmax_loop_over_a_plain_forward_pass():
    greedy = sample(stop_ids=NO_STOP, sampling=Sampling(temperature=0.0))
    rows, starts = whole_rows(greedy)
    best = np.asarray(response_logits(weights(), rows, starts)).argmax(-1)
    np.testing.assert_array_equal(greedy.tokens, best)
    assert (np.asarray(greedy.logprobs) == 0).all()
    # All responses of a group are one.
    groups = np.asarray(greedy.tokens).reshape(-1, GROUP, LENGTH)
    assert (groups == groups[:, :1]).all()


# Slots


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
    monkeypatch.setattr(rollout, "FIRST_CAPACITY", 4)
    monkeypatch.setattr(rollout, "FEWEST_SLOTS", 1)
    for slots in (None, 5):
        got, _ = in_slots.__wrapped__(slots)
        assert_same_samples(got, in_slots()[0])
    assert rollout.capacities(LENGTH) == [4, 8, LENGTH]
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
    slots, responses = data.draw(st.integers(1, 6)), data.draw(st.integers(6, 20))
    flags = st.lists(st.booleans(), min_size=slots, max_size=slots)
    working = np.array([data.draw(flags), data.draw(flags)])
    queued = np.array([data.draw(st.integers(0, responses)) for _ in range(2)])
    assigned = rollout.next_responses(working, queued, responses)
    for share in range(2):
        # then free slots, and no others, take up the next of their own queue.
        taken = assigned[share][assigned[share] >= 0]
        free = (~working[share]).sum()
        assert not (working[share] & (assigned[share] >= 0)).any()
        assert taken.tolist() == list(range(queued[share], min(queued[share] + free, responses)))


@settings(deadline=None)
@given(st.integers(1, 100_000))
def test_caches_double_up_to_the_longest_response(length):
    sizes = rollout.capacities(length)
    assert sizes[-1] == length
    assert sizes[0] == rollout.FIRST_CAPACITY or len(sizes) == 1
    assert all(2 * small <= large for small, large in itertools.pairwise(sizes))


def test_weights_stored_output_major_give_the_same_responses():
    plain = rollout.layout_for(TINY, weights(), rollout.OUTPUT_MAJOR_ROWS + 1)
    turned = rollout.layout_for(TINY, weights(), rollout.OUTPUT_MAJOR_ROWS)
    assert (plain.output_major, turned.output_major) == (False, True)
    for sampling in (Sampling(), Sampling(top_p=0.9), Sampling(temperature=0.0)):
        got = sample(layout=plain, sampling=sampling)
        assert_same_samples(got, sample(layout=turned, sampling=sampling))


# Shapes and programs


@settings(deadline=None)
@given(st.integers(1, 200_000))
def test_a_bucket_holds_its_length_with_at_most_a_third_of_padding(length):
    size = bucket(length)
    assert size >= max(length, 16)
    assert length <= 16 or (size - length) / size < 1 / 3
    assert bucket(size) == size
    odd = size // (size & -size)  # 2^k or 3·2^k
    assert odd in (1, 3)


def test_buckets_grow_with_the_length_and_are_few():
    sizes = [bucket(length) for length in range(1, 4097)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 17  # 16, 24, 32, 48, ... 4096


def test_prompts_are_padded_on_the_right_and_filled_up_to_a_multiple():
    tokens, lengths = pad_prompts([[7, 8], [9] * 17, [5]], 2)
    assert tokens.shape == (4, 24)
    assert lengths.tolist() == [2, 17, 1, 1]
    assert tokens[0].tolist() == [7, 8] + [0] * 22
    assert tokens[1].tolist() == [9] * 17 + [0] * 7


@pytest.mark.parametrize("prompts", [[], [[1], []]])
def test_no_prompt_and_empty_prompts_are_refused(prompts):
    with pytest.raises(ValueError, match="no prompt may be empty"):
        sample(prompts=prompts)


def test_programs_compiled_over_many_steps_are_as_many_as_buckets():
    # Given 20 steps of prompts of random lengths, with other keys and sequence ids each,
    rng = np.random.default_rng(7)
    lengths = [16, 32, *rng.integers(1, 33, size=18).tolist()]
    sample(prompts=[[1]], group_size=1)  # the buckets' programs, as far as others made them
    before = {f: f._cache_size() for f in (prefill, decode, decode_layout)}
    for step, length in enumerate(lengths):
        prompt = rng.integers(0, TINY.vocab_size, size=length).tolist()
        sample(
            prompts=[prompt],
            group_size=1,
            seed=step,
            first_sequence=step,
            stop_ids=[step, step + 1],
        )
    # then no more programs were made than there are new buckets.
    buckets = {bucket(length) for length in lengths}
    assert buckets == {16, 24, 32}
    made = {f: f._cache_size() - count for f, count in before.items()}
    assert made[prefill] <= len(buckets) - 1
    assert made[decode] <= len(buckets) - 1
    assert made[decode_layout] == 0


def decode_program(config, prompts, group, length, width):
    """The compiled decode loop for a cache of `length`, and the bytes of weights and caches."""
    shape, i32, f32 = jax.ShapeDtypeStruct, jnp.int32, jnp.dtype("float32")
    rows = shape((1, prompts * group), i32)
    params = llama.map_weights(lambda s, _: shape(s, f32), llama.weights(config))
    layout = jax.eval_shape(lambda p: decode_layout(config, p, f32), params)
    prefilled, last = jax.eval_shape(
        lambda p, t, n: prefill(config, p, t, n, f32),
        params,
        shape((prompts, width), i32),
        shape((prompts,), i32),
    )
    state = jax.eval_shape(
        lambda last, rows: engine.start(
            config,
            last,
            rows,
            group=group,
            slots=prompts * group,
            length=length,
            capacity=length,
        ),
        last,
        engine.Rows(rows, rows, rows),
    )
    compiled = decode.lower(
        config,
        layout,
        prefilled,
        state,
        engine.Pause(shape((1,), i32), shape((), i32), shape((), i32)),
        shape((3,), i32),
        jax.eval_shape(lambda: jax.random.key(0)),
        sampling=Sampling(),
    ).compile()
    given = sum(x.size * 4 for x in jax.tree.leaves((layout, prefilled)))
    cache = sum(x.size * 4 for x in jax.tree.leaves((state.keys, state.values)))
    return compiled, given, cache


def test_a_decode_step_reads_weights_and_cache_once_and_copies_neither():
    # Given a cache that is large beside everything else,
    config = dataclasses.replace(TINY, num_heads=2, num_kv_heads=2, head_dim=32)
    compiled, given, cache = decode_program(config, prompts=2, group=8, length=1024, width=48)
    assert cache > 20 * given
    # then a step touches about their size: a copy of the cache would make it three times that,
    touched = hlo.bytes_per_step(compiled.as_text())
    assert cache < touched < 1.3 * (given + cache)
    # and no second cache is kept.
    assert compiled.memory_analysis().temp_size_in_bytes < 0.2 * cache


def test_the_measure_of_a_step_sees_a_stacked_cache_being_copied():
    # Given the layout to avoid, one cache for all layers carried through a scan over layers,
    shape = (2, 2, 8, 2, 1024, 32)

    def decode_stacked(cache, x):
        def step(state):
            def layer(state, i):
                cache, x = state
                own = jax.lax.dynamic_update_slice(cache[i], x[..., None, :], (0, 0, 0, at, 0))
                cache = jax.lax.dynamic_update_slice(cache, own[None], (i, 0, 0, 0, 0, 0))
                scores = jax.nn.softmax(jnp.einsum("pgkh,pgkth->pgkt", x, own))
                return (cache, jnp.einsum("pgkt,pgkth->pgkh", scores, own)), None

            at, cache, x = state
            (cache, x), _ = jax.lax.scan(layer, (cache, x), jnp.arange(2))
            return at + 1, cache, x

        return jax.lax.while_loop(lambda s: s[0] < 99, step, (jnp.int32(0), cache, x))[2]

    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, (*shape[1:4], shape[5]))]
    program = jax.jit(decode_stacked).lower(*arguments).compile().as_text()
    # then a step touches several times the cache.
    assert hlo.bytes_per_step(program) > 2 * np.prod(shape) * 4
