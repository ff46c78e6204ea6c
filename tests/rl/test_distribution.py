"""The sampled distribution: what it keeps, its log-probabilities, and draws from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from alphamed_jax.rl.distribution import (
    DROPPED,
    Sampling,
    block_width,
    draw,
    kept_tokens,
    logprobs_and_entropy,
    shape_logits,
)

SMALL = 24
DRAWS = 40_000
EVERYTHING = Sampling()
FILTERED = Sampling(temperature=2.0, top_p=0.6, top_k=5)

sampled = functools.partial(jax.jit, static_argnames=("sampling", "vocabulary_first"))(draw)


@functools.partial(jax.jit, static_argnames="sampling")
def every_token(logits, *, sampling):
    """For one row of logits: what is kept, and log-probability and entropy of each token."""
    rows = jnp.broadcast_to(logits, (SMALL, SMALL))
    logprobs, entropy = logprobs_and_entropy(rows, jnp.arange(SMALL), sampling)
    return kept_tokens(logits / sampling.temperature, sampling), logprobs, entropy


def row_keys(count, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def kept_by_sorting(logits, sampling):
    """Top-k, then top-p of the rest, by sorting in float64; and how clear top-p's border is."""
    probabilities = softmax(logits / sampling.temperature)
    mask = np.ones(len(logits), bool)
    if sampling.top_k:
        mask = probabilities >= np.sort(probabilities)[::-1][sampling.top_k - 1]
    clear = 1.0
    if sampling.top_p < 1:
        left = np.where(mask, probabilities, 0.0) / probabilities[mask].sum()
        levels = np.unique(left[mask])[::-1]  # tokens of equal probability stay or go together
        mass = np.array([left[left >= level].sum() for level in levels])
        mask &= left >= levels[np.argmax(mass >= sampling.top_p)]
        clear = np.abs(mass - sampling.top_p).min()
    return mask, clear


# Multiples of 1/8: tokens are equally likely or clearly not.
coarse_logits = st.lists(st.integers(-40, 40), min_size=SMALL, max_size=SMALL).map(
    lambda values: np.array(values, np.float32) / 8
)
filters = [Sampling(top_k=3), Sampling(temperature=0.5, top_p=0.8), FILTERED]


@settings(max_examples=120)
@given(logits=coarse_logits, sampling=st.sampled_from([Sampling(temperature=1.7), *filters]))
@example(logits=np.zeros(SMALL, np.float32), sampling=Sampling(top_k=3))
@example(logits=np.zeros(SMALL, np.float32), sampling=FILTERED)
def test_filters_keep_what_sorting_keeps_and_logprobs_are_renormalised_over_it(logits, sampling):
    expected, clear = kept_by_sorting(logits, sampling)
    assume(clear > 1e-6)
    # When every token of the row is scored in turn,
    kept, logprobs, entropy = map(np.asarray, every_token(logits, sampling=sampling))
    # then the kept ones are those that sorting keeps,
    np.testing.assert_array_equal(kept, expected)
    # and over them the log-probabilities are the tempered softmax, renormalised,
    tempered = softmax(logits / sampling.temperature)
    probabilities = tempered[expected] / tempered[expected].sum()
    np.testing.assert_allclose(logprobs[expected], np.log(probabilities), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(logprobs[expected], dtype=np.float64).sum(), 1, rtol=1e-5)
    # with the entropy of just that.
    entropies = -(probabilities * np.log(probabilities)).sum()
    np.testing.assert_allclose(entropy[expected], entropies, rtol=1e-4, atol=1e-5)


def test_filters_that_can_drop_nothing_keep_everything():
    logits = jnp.linspace(-9, 9, SMALL)
    for sampling in (Sampling(top_k=SMALL), Sampling(top_k=99), Sampling(top_p=1.0, top_k=0)):
        assert kept_tokens(logits, sampling).all()


def test_a_certain_token_is_kept_however_little_mass_is_asked_for():
    logits = jnp.where(jnp.arange(SMALL) == 7, 200.0, -200.0)
    kept, logprobs, _ = every_token(logits, sampling=Sampling(top_p=1e-6))
    np.testing.assert_array_equal(np.flatnonzero(kept), [7])
    assert logprobs[7] == 0


def test_always_keeps_the_sampled_token():
    # Given tokens that the filter drops,
    logits = jnp.arange(SMALL) / 4.0
    sampling = Sampling(top_k=3)
    spots = jnp.arange(SMALL)
    # when one is marked, then it stays beside the three kept ones; without the mark it goes.
    stays = shape_logits(logits, sampling, spots == 2) > DROPPED
    np.testing.assert_array_equal(np.flatnonzero(stays), [2, SMALL - 3, SMALL - 2, SMALL - 1])
    stays = shape_logits(logits, sampling) > DROPPED
    np.testing.assert_array_equal(np.flatnonzero(stays), [SMALL - 3, SMALL - 2, SMALL - 1])
    # The trainer marks its token: the log-probability is that within the enlarged set.
    _, logprobs, _ = every_token(logits, sampling=sampling)
    among = np.exp(np.asarray(logits, np.float64))[[2, -3, -2, -1]]
    np.testing.assert_allclose(logprobs[2], np.log(among[0] / among.sum()), rtol=1e-5)


@pytest.mark.parametrize("sampling", [EVERYTHING, FILTERED])
def test_gradient_is_finite_and_zero_on_dropped_tokens(sampling):
    # Given ordinary logits, huge ones, and ones that are already dropped,
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3, SMALL)).astype(np.float32) * np.float32([[1], [1e4], [1]])
    logits[2, 3:] = DROPPED
    tokens = jnp.asarray(logits.argmax(-1))

    @jax.jit
    def gradients(logits):
        def total(which):
            return lambda x: logprobs_and_entropy(x, tokens, sampling)[which].sum()

        shaped = shape_logits(logits, sampling)
        return jax.grad(total(0))(logits), jax.grad(total(1))(logits), shaped

    grads, of_entropy, shaped = map(np.asarray, gradients(logits))
    # then the gradient is one-hot minus probabilities over the temperature, zero where dropped,
    assert np.isfinite(grads).all()
    expected = (np.eye(SMALL)[tokens] - softmax(shaped)) / sampling.temperature
    np.testing.assert_allclose(grads, expected, atol=1e-5)
    assert (grads[shaped <= DROPPED] == 0).all()
    # and the entropy is a metric alone.
    assert (of_entropy == 0).all()


@pytest.mark.parametrize("vocabulary", [97, 100, 192])
def test_draws_are_as_frequent_as_the_softmax_says(vocabulary):
    # Given a distribution with probabilities over about two orders of magnitude,
    logits = np.random.default_rng(vocabulary).normal(size=vocabulary).astype(np.float32)
    rows = jnp.broadcast_to(logits, (DRAWS, vocabulary))
    # when many tokens are drawn,
    tokens, _ = sampled(row_keys(DRAWS), rows, sampling=EVERYTHING)
    # then tokens, places within a block, and blocks all come as often as they should.
    expected = DRAWS * softmax(logits)
    counts = np.bincount(tokens, minlength=vocabulary)
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    width = block_width(vocabulary)
    for axis in (0, 1):
        seen, hoped = (x.reshape(-1, width).sum(axis) for x in (counts, expected))
        assert len(seen) == 1 or stats.chisquare(seen, hoped).pvalue > 1e-3


def test_tokens_at_the_edges_of_blocks_are_drawn_as_often_as_others():
    # Given equal mass on the first and last token of every block and none between,
    vocabulary = 100
    width = block_width(vocabulary)
    edge = np.isin(np.arange(vocabulary) % width, [0, width - 1])
    assert 2 < width < vocabulary / 2
    logits = np.where(edge, 0.0, DROPPED).astype(np.float32)
    rows = jnp.broadcast_to(logits, (DRAWS, vocabulary))
    tokens, logprobs = sampled(row_keys(DRAWS, seed=1), rows, sampling=EVERYTHING)
    counts = np.bincount(tokens, minlength=vocabulary)
    assert counts[~edge].sum() == 0
    assert stats.chisquare(counts[edge]).pvalue > 1e-3
    np.testing.assert_allclose(logprobs, -np.log(edge.sum()), rtol=1e-5)


# Weights may be ordinary, underflow to zero in the softmax, or be dropped outright.
extreme = st.sampled_from([0.0, 1.0, -5.0, 30.0, -80.0, -200.0, -1e4, DROPPED, -np.inf])


@settings(max_examples=60)
@given(
    values=st.lists(extreme, min_size=SMALL, max_size=SMALL),
    top=st.integers(0, SMALL - 1),
    sampling=st.sampled_from([EVERYTHING, FILTERED]),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_token_without_weight_is_never_drawn(values, top, sampling, seed):
    logits = np.array(values, np.float32)
    logits[top] = 31.0  # at least one token has weight
    rows = jnp.broadcast_to(logits, (64, SMALL))
    tokens, logprobs = sampled(row_keys(64, seed), rows, sampling=sampling)
    assert (softmax(logits)[tokens] > 0).all()
    kept, of_trainer, _ = map(np.asarray, every_token(logits, sampling=sampling))
    assert kept[tokens].all()
    # What was drawn has the log-probability that the trainer gives it.
    np.testing.assert_allclose(logprobs, of_trainer[tokens], atol=1e-5)


@pytest.mark.parametrize("sampling", [EVERYTHING, FILTERED])
def test_sampler_and_trainer_give_one_logprob(sampling):
    logits = 3 * jax.random.normal(jax.random.key(4), (64, SMALL))
    tokens, of_sampler = sampled(row_keys(64), logits, sampling=sampling)
    of_trainer, _ = jax.jit(logprobs_and_entropy, static_argnums=2)(logits, tokens, sampling)
    np.testing.assert_allclose(of_sampler, of_trainer, atol=1e-5)
    assert len(set(np.asarray(of_sampler).tolist())) > 8


def test_even_the_extreme_noise_draws_the_only_token_there_is(monkeypatch):
    # Given a single token with weight, at each border of a block and at the ends,
    width = block_width(SMALL)
    spots = np.array([0, width - 1, width, SMALL - 1])
    logits = jnp.where(jnp.arange(SMALL) == spots[:, None], 3.0, DROPPED)

    @jax.jit
    def with_noise(uniform):
        monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, uniform))
        return draw(row_keys(4), logits, EVERYTHING)

    # when the noise is at either end of [0, 1), then it is drawn, with certainty.
    for uniform in (0.0, 0.5, 1 - 2**-24):
        tokens, logprobs = with_noise(np.float32(uniform))
        np.testing.assert_array_equal(tokens, spots)
        assert (logprobs == 0).all()


@pytest.mark.parametrize("vocabulary_first", [False, True])
@pytest.mark.parametrize("sampling", [EVERYTHING, FILTERED])
def test_a_greedy_row_takes_its_likeliest_token_and_leaves_the_others_alone(
    sampling, vocabulary_first
):
    # Given logits, some rows of which have several likeliest tokens, and every third row greedy,
    logits = jax.random.normal(jax.random.key(5), (64, SMALL))
    logits = logits.at[:32, 7::9].set(logits.max() + 1)
    greedy = jnp.arange(64) % 3 == 0
    given = logits.T if vocabulary_first else logits
    tokens, logprobs = sampled(
        row_keys(64), given, sampling=sampling, greedy=greedy, vocabulary_first=vocabulary_first
    )
    # then these take the first of the likeliest, with certainty,
    np.testing.assert_array_equal(tokens[greedy], np.argmax(logits, axis=-1)[greedy])
    assert (logprobs[greedy] == 0).all()
    # and the others are drawn as ever.
    plain = sampled(row_keys(64), given, sampling=sampling, vocabulary_first=vocabulary_first)
    for got, expected in zip((tokens, logprobs), plain, strict=True):
        np.testing.assert_array_equal(got[~greedy], expected[~greedy])


def test_a_draw_depends_on_its_own_key_and_logits_alone():
    logits = jax.random.normal(jax.random.key(6), (64, SMALL))
    together, _ = sampled(row_keys(64), logits, sampling=EVERYTHING)
    backwards, _ = sampled(row_keys(64)[::-1], logits[::-1], sampling=EVERYTHING)
    np.testing.assert_array_equal(together, backwards[::-1])
    others, _ = sampled(row_keys(64, seed=1), logits, sampling=EVERYTHING)
    assert (together != others).any()


# 32,000 is Llama 2, 32,001 one token added to it, 128,256 Llama 3, 151,936 Qwen2.
@pytest.mark.parametrize("vocabulary", [1, 2, 97, 320, 32000, 32001, 128256, 151936])
def test_blocks_cover_the_vocabulary_and_its_shards_end_between_them(vocabulary):
    # The width is a function of the vocabulary alone, so the draw is the same on every mesh.
    width = block_width(vocabulary)
    assert vocabulary % width == 0
    if vocabulary % 64 == 0:
        assert vocabulary // width % 64 == 0
    if vocabulary > 1000 and vocabulary % 64 == 0:
        assert 1 / 4 < width / np.sqrt(vocabulary) < 4
