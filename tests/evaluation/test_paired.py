"""Paired statistics: closed forms, scipy's own functions, and what simulated evaluations show."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alphamed_jax.evaluation.paired import (
    RESAMPLES,
    bootstrap_interval,
    clustered,
    exact_mcnemar,
    holm,
    needed,
    questions_needed,
    sign_flip_test,
)

differences = st.lists(st.integers(-4, 4), min_size=2, max_size=40)


def single(values):
    """Each value a distinct question."""
    return clustered(values, range(len(values)))


# -- clusters ------------------------------------------------------------------------------------


def test_rows_of_one_question_are_added_up():
    clusters = clustered([1, 0, -1, 1], ["a", "b", "a", "c"])

    assert clusters.sums.tolist() == [0, 0, 1]
    assert clusters.sizes.tolist() == [2, 1, 1]
    assert clusters.mean == 0.25


def test_shares_of_opposite_sign_leave_nothing():
    assert clustered([0.1, 0.2, -0.3], "aaa").sums.tolist() == [0]


# -- the interval --------------------------------------------------------------------------------


def test_the_interval_is_that_of_scipys_paired_bootstrap():
    rng = np.random.default_rng(3)
    base, other = rng.random(200) < 0.5, rng.random(200) < 0.6
    (child,) = np.random.default_rng(7).spawn(1)
    whole = stats.bootstrap(
        (other.astype(float), base.astype(float)),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=500,
        method="percentile",
        rng=child,
    ).confidence_interval

    found = bootstrap_interval([single((other.astype(int) - base).tolist())], seed=7)

    assert found == pytest.approx(tuple(whole))


def test_the_interval_is_about_as_wide_as_the_normal_one():
    values = np.random.default_rng(0).choice([-1, 0, 1], 1000, p=[0.1, 0.7, 0.2])
    half = 1.96 * values.std() / math.sqrt(1000)

    low, high = bootstrap_interval([single(values.tolist())], seed=0)

    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)


def test_rows_that_repeat_questions_do_not_narrow_the_interval():
    values = np.random.default_rng(0).choice([-1, 0, 1], 300, p=[0.1, 0.7, 0.2]).tolist()
    once = bootstrap_interval([single(values)], seed=1)
    again = bootstrap_interval([clustered(values * 5, [*range(300)] * 5)], seed=1)

    assert again == pytest.approx(once)


def test_the_macro_interval_draws_each_benchmark_by_itself():
    rng = np.random.default_rng(1)
    few, many = (rng.choice([-1, 0, 1], n, p=[0.1, 0.6, 0.3]) for n in (100, 400))
    error = math.sqrt(few.var() / 100 + many.var() / 400) / 2
    mean = (few.mean() + many.mean()) / 2

    low, high = bootstrap_interval([single(few.tolist()), single(many.tolist())], seed=0)

    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.006)


@given(differences, st.integers(0, 5))
def test_swapping_the_two_turns_the_interval_around(values, seed):
    low, high = bootstrap_interval([single(values)], seed)
    swapped = bootstrap_interval([single([-value for value in values])], seed)

    assert swapped == pytest.approx((-high, -low), abs=1e-9)
    assert low <= high


def test_one_question_has_no_interval():
    assert bootstrap_interval([clustered([1, 1, 0], "aaa")], seed=0) is None


# -- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (8, 1, 2 * (1 + 9) / 512), (3, 3, 1.0)],
)
def test_mcnemar_is_the_binomial_closed_form(better, worse, p):
    assert exact_mcnemar(better, worse) == pytest.approx(p)
    assert exact_mcnemar(worse, better) == pytest.approx(p)


@given(st.integers(0, 7), st.integers(0, 6), st.integers(0, 30))
def test_flipping_signs_of_single_samples_is_the_exact_mcnemar_test(better, worse, same):
    values = [1] * better + [-1] * worse + [0] * same

    p = sign_flip_test(single(values or [0]), seed=0)

    assert p == pytest.approx(exact_mcnemar(better, worse))


def test_with_many_questions_the_flipped_signs_agree_with_mcnemar():
    values = [1] * 70 + [-1] * 50 + [0] * 500

    assert sign_flip_test(single(values), seed=0) == pytest.approx(exact_mcnemar(70, 50), abs=0.01)


def test_samples_of_a_question_are_no_questions_of_their_own():
    # Ten samples of six questions each: six signs, hence no p-value below 2 / 2^6.
    assert sign_flip_test(single([0.9, 0.8, 1.0, 0.7, 0.9, 0.6]), seed=0) == 2 / 64


def test_under_the_null_hypothesis_five_of_a_hundred_tests_alarm():
    rng = np.random.default_rng(0)
    alarms = [
        sign_flip_test(single((rng.integers(-3, 4, 12) / 3).tolist()), seed=0) < 0.05
        for _ in range(300)
    ]

    assert 0.02 < np.mean(alarms) < 0.08


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values):
    adjusted = holm(p_values)

    for p, a in zip(p_values, adjusted, strict=True):
        assert p <= a <= min(1.0, p * len(p_values)) + 1e-12
    ordered = sorted(zip(p_values, adjusted, strict=True))
    assert [a for _, a in ordered] == sorted(adjusted)


# -- how many would be needed --------------------------------------------------------------------


def test_the_published_example_of_paired_proportions():
    # Calculators that cite Connor 1987 give 23 for 0.05 against 0.45.
    assert questions_needed(0.05, 0.45) == 23
    assert questions_needed(0.45, 0.05) == 23
    assert questions_needed(0.1, 0.1) is None


def test_so_many_are_needed_that_the_exact_test_can_alarm():
    assert questions_needed(1.0, 0.0) == 6
    assert exact_mcnemar(6, 0) < 0.05 < exact_mcnemar(5, 0)


@pytest.mark.parametrize(("better", "worse"), [(0.15, 0.1), (0.12, 0.04), (0.3, 0.2)])
def test_that_many_questions_see_the_difference_four_times_in_five(better, worse):
    n = questions_needed(better, worse)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, [better, worse, 1 - better - worse], size=4000)
    wins, changed = drawn[:, 0], drawn[:, 0] + drawn[:, 1]
    p = np.minimum(1, 2 * stats.binom.cdf(np.minimum(wins, changed - wins), changed, 0.5))

    # The exact test is a little more careful than the formula's normal one.
    assert 0.74 < np.mean(p < 0.05) < 0.84


def test_needed_questions_and_samples_see_the_difference_with_several_samples():
    rng = np.random.default_rng(4)
    k, found = 4, 4000

    def evaluate(questions, samples):
        """Chances to be right differ between questions; the other is 0.04 better in each."""
        chance = rng.beta(1, 1, questions) * 0.9
        base = rng.binomial(samples, chance) / samples
        return rng.binomial(samples, chance + 0.04) / samples - base, chance

    values, chance = evaluate(found, k)
    within = float(np.mean(chance * (1 - chance) + (chance + 0.04) * (0.96 - chance)))
    told = needed(single(values.tolist()), within, k)
    seen = []
    for _ in range(600):
        one, _ = evaluate(told.questions, k)
        seen.append(stats.ttest_1samp(one, 0).pvalue < 0.05)

    assert 0.7 < np.mean(seen) < 0.9
    assert told.samples is not None
    assert told.samples <= k  # these many questions show it already
    assert 0 < told.detectable < 0.04


def test_more_samples_do_not_help_where_questions_themselves_differ():
    values = [0.5, -0.5] * 10 + [0.5]

    told = needed(single(values), within=0.01, samples=4)

    assert told.samples is None
    assert told.questions > 1000


def test_without_a_difference_no_number_is_enough():
    told = needed(single([1, -1, 0, 0]), None, 1)

    assert (told.questions, told.samples) == (None, None)
    assert told.detectable == pytest.approx(2.8016 * math.sqrt(2 / 3 / 4), abs=1e-3)
    assert needed(single([0, 0]), None, 1).detectable is None
