"""The sampler: what a row draws, where it ends, and what a decode step costs."""

import jax
import numpy as np
import pytest
from helpers import TINY, mesh_like
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_rollouts import (
    GROUP,
    LENGTH,
    NO_STOP,
    PROMPTS,
    ROWS,
    STOPS,
    assert_same_samples,
    response_logits,
    sample,
    sampled,
    split_weights,
    weights,
    whole_rows,
)

from alphamed_jax.rl import decode as engine
from alphamed_jax.rl.buckets import bucket, pad_prompts
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.language_model import Transformer

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
    # Four prompts on eight data shards are filled up with four more, which are left off again.
    split = sampled(mesh)
    assert split.tokens.shape == (ROWS, LENGTH)
    assert split.prompt_tokens.shape[0] == len(PROMPTS)
    assert_same_samples(split, sampled())


@pytest.mark.parametrize("slots", [None, 8])
@pytest.mark.parametrize("mesh", ["4x2", "2x2x2"])
def test_samples_are_the_same_with_weights_that_stay_sharded(mesh, slots):
    samples = sample(split_weights(mesh), sharded=True, slots=slots)
    assert_same_samples(samples, sampled())


def test_sharded_weights_take_a_share_of_the_memory_that_gathered_ones_take():
    def bytes_of_a_device(sharded):
        model = Transformer(TINY, np.dtype("float32"), sharded=sharded)
        with jax.set_mesh(mesh_like("4x2")):
            arrays = jax.tree.leaves(model.load(split_weights("4x2"), ROWS // 4))
        return sum(x.addressable_data(0).nbytes for x in arrays if x.ndim > 1)

    # All matrices have an axis of the model's width, which fsdp splits in four.
    assert 4 * bytes_of_a_device(True) == bytes_of_a_device(False)


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


# Shapes


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
