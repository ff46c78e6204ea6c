"""The objective against closed forms in NumPy, and what must not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import LENGTH, LENGTHS, ROWS, Case, assert_matches, loss_of, value_and_gradient

from alphamed_jax.rl.loss import Totals, kl_estimate, policy_loss, totals_of

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=25)
@given(
    seed=seeds,
    clip_low=st.sampled_from([0.0, 0.1, 0.2]),
    clip_high=st.sampled_from([0.2, 0.28, 1.0]),
    dual_clip=st.sampled_from([None, 1.5, 3.0]),
    ratio=st.sampled_from(["token", "sequence"]),
    aggregation=st.sampled_from(["token_mean", "sequence_mean", "constant"]),
    kl_estimator=st.sampled_from(["k1", "k2", "k3"]),
    tis_cap=st.sampled_from([None, 1.0, 1.5, 1e6]),
)
def test_value_gradient_and_metrics_have_their_closed_form(seed, **options):
    case = Case(seed, spread=0.5)
    assert_matches(case, case.reference, kl_coef=0.3, constant_length=10, **options)


def test_clip_bounds_are_separate_and_remove_gradient_on_the_bound_side_alone():
    # Given ratios below, within and above a lopsided range, under either sign of advantage,
    case = Case(lengths=(3, 3, 0, 0))
    case.old[:] = -2.0
    case.new[:, :3] = case.old[:, :3] + np.log(np.float32([0.85, 1.1, 1.25]))
    case.advantages[:2] = [1.0, -1.0]
    # when only one of the two bounds binds,
    low = assert_matches(case, clip_low=0.1, clip_high=0.3)
    high = assert_matches(case, clip_low=0.2, clip_high=0.2)
    # then it is its own metric that counts it: one of six tokens each.
    np.testing.assert_allclose([low["clip/low"], low["clip/high"]], [1 / 6, 0], atol=1e-7)
    np.testing.assert_allclose([high["clip/low"], high["clip/high"]], [0, 1 / 6], atol=1e-7)
    *_, gradient = value_and_gradient(case, clip_low=0.1, clip_high=0.2)
    assert (gradient[0, :3] != 0).tolist() == [True, True, False]
    assert (gradient[1, :3] != 0).tolist() == [False, True, True]


def test_dual_clip_bounds_the_loss_of_negative_advantages_alone():
    # Given a ratio of ten,
    case = Case(lengths=(1, 1, 0, 0))
    case.new[:, 0] = case.old[:, 0] + np.log(np.float32(10.0))
    case.advantages[:2] = [1.0, -1.0]
    # when the bound is three, then the bad row loses three instead of ten and has no gradient;
    # the good row gains the clipped 1.2 either way.
    without, _, pulls = value_and_gradient(case)
    bounded, _, rests = value_and_gradient(case, dual_clip=3.0)
    np.testing.assert_allclose([without, bounded], [(10 - 1.2) / 2, (3 - 1.2) / 2], rtol=1e-5)
    assert pulls[1, 0] != 0
    assert (rests == 0).all()


def test_tis_weighs_each_token_and_is_a_constant_to_the_gradient():
    # Given two tokens on policy; the trainer finds one half, the other four times as likely as the
    # sampler did,
    case = Case(lengths=(2, 0, 0, 0))
    case.new[:] = case.old[:] = -3.0
    case.sampler[0, :2] = case.old[0, :2] - np.log(np.float32([0.5, 4.0]))
    case.advantages[0] = 1.0
    # when weights go up to two, then they are a half and two, and so are the gradients.
    value, metrics, gradient = value_and_gradient(case, tis_cap=2.0)
    np.testing.assert_allclose(value, -(0.5 + 2.0) / 2, rtol=1e-6)
    np.testing.assert_allclose(gradient[0, :2], [-0.5 / 2, -2.0 / 2], rtol=1e-6)
    np.testing.assert_allclose([metrics["tis/weight"], metrics["tis/truncated"]], [1.25, 0.5])
    # Where old log-probabilities are the trainer's own, no gradient flows through them either.

    def loss(new):
        options = {"sampler_logprobs": jnp.asarray(case.sampler), "tis_cap": 2.0}
        old, mask = jax.lax.stop_gradient(new), jnp.asarray(case.mask)
        return policy_loss(new, old, jnp.asarray(case.advantages), mask, **options)[0]

    np.testing.assert_array_equal(jax.grad(loss)(jnp.asarray(case.new)), gradient)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_tis_changes_nothing_where_sampler_and_trainer_agree(ratio):
    case = Case(4)
    case.sampler = case.old.copy()
    without = value_and_gradient(case, ratio=ratio, dual_clip=3.0)
    weighed = value_and_gradient(case, ratio=ratio, dual_clip=3.0, tis_cap=2.0)
    assert weighed[:2] == without[:2]
    np.testing.assert_array_equal(weighed[2], without[2])


def test_tis_does_not_weigh_the_kl():
    case = Case(6)
    case.advantages[:] = 0.0
    options = {"reference_logprobs": case.reference, "kl_coef": 0.5}
    without, weighed = (value_and_gradient(case, **options, tis_cap=c) for c in (None, 1.5))
    assert weighed[0] == without[0]
    np.testing.assert_array_equal(weighed[2], without[2])


def test_tis_without_the_samplers_logprobs_is_refused():
    case = Case()
    arrays = map(jnp.asarray, (case.new, case.old, case.advantages, case.mask))
    with pytest.raises(ValueError, match="tis_cap needs sampler_logprobs"):
        policy_loss(*arrays, tis_cap=2.0)


def test_sequence_ratio_is_shared_by_the_tokens_of_a_response():
    case = Case(lengths=(6, 2, 3, 0), spread=0.05)
    _, metrics, gradient = value_and_gradient(case, ratio="sequence", clip_low=9.0, clip_high=9.0)
    differences = np.where(case.mask, case.new - case.old, 0.0).sum(1) / [6, 2, 3, 1]
    expected = (np.exp(differences) * [6, 2, 3, 0]).sum() / 11
    np.testing.assert_allclose(metrics["ratio/mean"], expected, rtol=1e-5)
    for row, length in enumerate((6, 2, 3)):
        share = -case.advantages[row] * np.exp(differences[row]) / 11
        np.testing.assert_allclose(gradient[row, :length], share, rtol=1e-5)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_aggregations_divide_by_what_they_say(aggregation):
    # Given ratio one and advantage one everywhere: each token loses one.
    case = Case(lengths=LENGTHS)
    case.new = case.old.copy()
    case.advantages[:] = 1.0
    value, _, _ = value_and_gradient(case, aggregation=aggregation, constant_length=12)
    # then: all tokens / tokens; the three rows with tokens of four; 10 tokens of 4 x 12.
    expected = {"token_mean": -1.0, "sequence_mean": -3 / 4, "constant": -10 / 48}
    np.testing.assert_allclose(value, expected[aggregation], rtol=1e-6)


def test_constant_aggregation_without_a_length_is_refused():
    case = Case()
    with pytest.raises(ValueError, match="needs constant_length"):
        value_and_gradient(case, aggregation="constant")


# CISPO


@settings(max_examples=12)
@given(
    seed=seeds,
    clip_low=st.sampled_from([0.2, 1.0]),
    clip_high=st.sampled_from([0.2, 2.0]),
    ratio=st.sampled_from(["token", "sequence"]),
    aggregation=st.sampled_from(["token_mean", "sequence_mean", "constant"]),
    tis_cap=st.sampled_from([None, 1.5]),
)
def test_cispo_has_its_closed_form(seed, **options):
    case = Case(seed, spread=0.5)
    options |= {"kl_coef": 0.3, "kl_estimator": "k3", "constant_length": 10}
    assert_matches(case, case.reference, variant="cispo", **options)


def test_cispo_leaves_no_token_out_and_bounds_its_weight():
    # Given ratios far beyond both bounds, and advantages of both signs,
    case = Case(3, lengths=(6, 6, 6, 6), spread=1.0)
    bounds = {"clip_low": 1.0, "clip_high": 0.2}
    clipped = value_and_gradient(case, variant="clip", **bounds)
    weighed = value_and_gradient(case, variant="cispo", **bounds)
    # then the clipped objective drops some of the tokens, CISPO none, each by its bounded weight.
    assert (clipped[2] == 0).any()
    ratios = np.exp(case.new - case.old)
    expected = -case.advantages[:, None] * np.minimum(ratios, 1.2) / case.mask.sum()
    np.testing.assert_allclose(weighed[2], expected, rtol=1e-4)
    assert weighed[1]["clip/low"] == 0.0
    np.testing.assert_allclose(weighed[1]["clip/high"], (ratios > 1.2).mean(), rtol=1e-5)


@settings(max_examples=12)
@given(
    seed=seeds,
    homes=st.lists(st.integers(0, 2), min_size=ROWS, max_size=ROWS),
    lengths=st.lists(st.integers(0, LENGTH), min_size=ROWS, max_size=ROWS),
    aggregation=st.sampled_from(["token_mean", "sequence_mean", "constant"]),
    ratio=st.sampled_from(["token", "sequence"]),
    tis_cap=st.sampled_from([None, 1.5]),
    variant=st.sampled_from(["clip", "cispo"]),
)
def test_parts_of_a_batch_add_up_to_the_whole(
    seed, homes, lengths, aggregation, ratio, tis_cap, variant
):
    # Given a batch whose rows are dealt to three unequal parts, garbage on the rows left blank,
    case = Case(seed, lengths)
    options = {"aggregation": aggregation, "ratio": ratio, "tis_cap": tis_cap}
    options |= {"constant_length": 7, "kl_coef": 0.1, "variant": variant}
    whole = value_and_gradient(case, reference_logprobs=case.reference, **options)
    totals = totals_of(jnp.asarray(case.mask))
    assert (float(totals.tokens), float(totals.sequences)) == (sum(lengths), ROWS)
    # when each part is divided by the totals of the whole,
    parts = []
    for home in range(3):
        part = Case(seed, lengths)
        part.mask &= (np.array(homes) == home)[:, None]
        parts.append(
            value_and_gradient(part, reference_logprobs=part.reference, totals=totals, **options)
        )
    # then losses, metrics and gradients add up: no mean of means.
    np.testing.assert_allclose(sum(p[0] for p in parts), whole[0], rtol=1e-4, atol=1e-6)
    for name, value in whole[1].items():
        summed = sum(p[1][name] for p in parts)
        np.testing.assert_allclose(summed, value, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(sum(p[2] for p in parts), whole[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_a_batch_twice_as_large_halves_the_loss_of_its_part(aggregation):
    case = Case()
    options = {"aggregation": aggregation, "constant_length": 7}
    whole, *_ = value_and_gradient(case, **options)
    twice = Totals(jnp.float32(2 * sum(LENGTHS)), jnp.float32(2 * ROWS))
    half, *_ = value_and_gradient(case, totals=twice, **options)
    np.testing.assert_allclose(half, whole / 2, rtol=1e-5)


@pytest.mark.parametrize("change", [{}, {"ratio": "sequence"}, {"variant": "cispo"}])
@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_whatever_stands_under_the_mask_changes_nothing(garbage, change):
    # Given a batch with a cut row and a row of padding alone,
    case, spoilt = Case(5), Case(5)
    for array in (spoilt.new, spoilt.old, spoilt.reference, spoilt.sampler):
        array[~spoilt.mask] = garbage
    spoilt.advantages[np.array(LENGTHS) == 0] = garbage
    options: dict = {"kl_coef": 0.2, "aggregation": "sequence_mean", "tis_cap": 1.5} | change
    if "variant" not in change:
        options["dual_clip"] = 2.0
    # when garbage stands on the padding, then value, metrics and gradient are the same bits.
    clean = value_and_gradient(case, reference_logprobs=case.reference, **options)
    dirty = value_and_gradient(spoilt, reference_logprobs=spoilt.reference, **options)
    assert dirty[:2] == clean[:2]
    np.testing.assert_array_equal(dirty[2], clean[2])
    assert (dirty[2][~case.mask] == 0).all()


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_a_batch_of_padding_alone_has_loss_and_gradient_zero(aggregation):
    case = Case(lengths=(0, 0, 0, 0))
    value, metrics, gradient = value_and_gradient(
        case,
        aggregation=aggregation,
        constant_length=9,
        reference_logprobs=case.reference,
        kl_coef=0.1,
    )
    assert value == 0
    assert set(metrics.values()) == {0.0}
    assert (gradient == 0).all()


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimators_and_their_gradients_have_their_closed_form(estimator):
    d = np.linspace(-4, 4, 33)[None]  # log reference - log policy
    new = jnp.full(d.shape, -5.0)
    reference = new + jnp.asarray(d, jnp.float32)
    value = kl_estimate(new, reference, estimator)
    gradient = jax.grad(lambda x: kl_estimate(x, reference, estimator).sum())(new)
    expected = {
        "k1": (-d, np.ones_like(d)),
        "k2": (d * d / 2, -d),
        "k3": (np.exp(d) - d - 1, 1 - np.exp(d)),
    }
    np.testing.assert_allclose(value, expected[estimator][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, expected[estimator][1], rtol=1e-5, atol=1e-5)
    # k2 and k3 are never negative, whatever was sampled.
    assert estimator == "k1" or (value >= 0).all()


def test_k1_and_k3_are_the_kl_divergence_in_expectation():
    # Given two distributions over a few tokens, and the policy's own weights on them,
    rng = np.random.default_rng(2)
    policy, reference = rng.dirichlet(np.ones(8), size=2).astype(np.float32)
    exact = (policy * np.log(policy / reference)).sum()
    for estimator in ("k1", "k3"):
        values = kl_estimate(*(jnp.log(x)[None] for x in (policy, reference)), estimator)
        np.testing.assert_allclose((policy * np.asarray(values)[0]).sum(), exact, rtol=1e-4)


def test_without_a_coefficient_the_reference_changes_nothing_but_its_metric():
    case = Case(3)
    alone = value_and_gradient(case)
    beside = value_and_gradient(case, reference_logprobs=case.reference, kl_coef=0.0)
    assert beside[0] == alone[0]
    np.testing.assert_array_equal(beside[2], alone[2])
    assert alone[1]["loss/kl"] == 0.0
    assert beside[1]["loss/kl"] > 0.0


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_on_policy_the_gradient_is_the_policy_gradient(ratio):
    # Given a policy that is the one that sampled,
    case = Case(lengths=(6, 1, 3, 2))
    case.new = case.old.copy()
    value, metrics, gradient = value_and_gradient(case, ratio=ratio)
    # then the loss is minus the mean advantage of a token, nothing is clipped,
    per_token = case.mask * case.advantages[:, None] / case.mask.sum()
    np.testing.assert_allclose(value, -per_token.sum(), rtol=1e-5)
    assert (metrics["clip/low"], metrics["clip/high"]) == (0.0, 0.0)
    np.testing.assert_allclose(metrics["ratio/mean"], 1.0, rtol=1e-6)
    # and the gradient is that of -mean(advantage x log-probability).
    np.testing.assert_allclose(gradient, -per_token, rtol=1e-5)


def test_on_policy_the_gradient_of_cispo_is_the_policy_gradient():
    case = Case(lengths=(6, 1, 3, 2))
    case.new = case.old.copy()
    _, metrics, gradient = value_and_gradient(case, variant="cispo", clip_low=1.0)
    per_token = case.mask * case.advantages[:, None] / case.mask.sum()
    np.testing.assert_allclose(gradient, -per_token, rtol=1e-5)
    assert (metrics["clip/low"], metrics["clip/high"]) == (0.0, 0.0)


def test_metrics_carry_no_gradient():
    case = Case(1)

    def metric_sum(new):
        return sum(loss_of(new, case)[1].values())

    assert (np.asarray(jax.grad(metric_sum)(jnp.asarray(case.new))) == 0).all()
