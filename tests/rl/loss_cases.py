"""Batches of log-probabilities, and the objective on them token by token in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax.rl.loss import policy_loss

ROWS, LENGTH = 4, 6
LENGTHS = (6, 1, 3, 0)  # a full row, an empty response, a cut one, a row of padding alone


class Case:
    """A random batch; its log-ratios spread over both sides of the clip range."""

    def __init__(self, seed=0, lengths=LENGTHS, spread=0.3):
        rng = np.random.default_rng(seed)
        shape = (ROWS, LENGTH)
        self.old = -rng.gamma(2.0, size=shape).astype(np.float32)
        self.new = self.old + rng.normal(0, spread, size=shape).astype(np.float32)
        self.reference = self.old + rng.normal(0, spread, size=shape).astype(np.float32)
        self.sampler = self.old + rng.normal(0, 0.7, size=shape).astype(np.float32)
        self.advantages = rng.normal(size=ROWS).astype(np.float32)
        self.mask = np.arange(LENGTH) < np.array(lengths)[:, None]


def loss_of(new, case, *, reference_logprobs=None, **options):
    old, advantages, mask = map(jnp.asarray, (case.old, case.advantages, case.mask))
    if reference_logprobs is not None:
        options["reference_logprobs"] = jnp.asarray(reference_logprobs)
    if "tis_cap" in options:
        options["sampler_logprobs"] = jnp.asarray(case.sampler)
    return policy_loss(new, old, advantages, mask, **options)


def value_and_gradient(case, **options):
    """Loss, metrics, and gradient by the log-probabilities."""
    gradient = jax.value_and_grad(functools.partial(loss_of, case=case, **options), has_aux=True)
    (value, metrics), gradient = gradient(jnp.asarray(case.new))
    return float(value), {k: float(v) for k, v in metrics.items()}, np.asarray(gradient)


def closed_form(
    case,
    *,
    variant="clip",
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=None,
    ratio="token",
    aggregation="token_mean",
    constant_length=None,
    kl_coef=0.0,
    kl_estimator=None,
    tis_cap=None,
):
    """Value, metrics and gradient, token by token in float64."""
    tokens, rows = case.mask.sum(), len(case.mask)
    policy = kl = 0.0
    names = ("clip/low", "clip/high", "ratio/mean", "tis/weight", "tis/truncated")
    metrics = dict.fromkeys(names, 0.0)
    gradient = np.zeros(case.mask.shape)
    for b, a in enumerate(case.advantages.astype(np.float64)):
        own = int(case.mask[b].sum())
        if own == 0:
            continue
        weight = {
            "token_mean": 1 / tokens,
            "sequence_mean": 1 / (rows * own),
            "constant": 1 / (rows * (constant_length or 1)),
        }[aggregation]
        differences = case.new[b, :own].astype(np.float64) - case.old[b, :own]
        for t in range(own):
            r = np.exp(differences[t] if ratio == "token" else differences.mean())
            bounded = min(max(r, 1 - clip_low), 1 + clip_high)
            loss, slope = -a * r, -a * r  # slope: by the log of the ratio
            if -a * bounded > loss:
                loss, slope = -a * bounded, 0.0
            if dual_clip is not None and a < 0 and loss > -a * dual_clip:
                loss, slope = -a * dual_clip, 0.0
            if variant == "cispo":  # the weight is a constant: the slope is by the log-probability
                loss, slope = -a * bounded * float(case.new[b, t]), -a * bounded
            trust = 1.0
            if tis_cap is not None:  # a constant: no slope of its own
                trust = min(np.exp(float(case.old[b, t]) - float(case.sampler[b, t])), tis_cap)
                metrics["tis/truncated"] += (trust == tis_cap) / tokens
            metrics["tis/weight"] += trust / tokens
            policy += weight * trust * loss
            if ratio == "token" or variant == "cispo":
                gradient[b, t] += weight * trust * slope
            else:
                gradient[b, :own] += weight * trust * slope / own
            metrics["clip/low"] += (r < 1 - clip_low and (a < 0 or variant == "cispo")) / tokens
            metrics["clip/high"] += (r > 1 + clip_high and (a > 0 or variant == "cispo")) / tokens
            metrics["ratio/mean"] += r / tokens
            if kl_estimator is not None:
                d = float(case.reference[b, t]) - float(case.new[b, t])
                kl += weight * {"k1": -d, "k2": d * d / 2, "k3": np.exp(d) - d - 1}[kl_estimator]
                by_new = {"k1": 1.0, "k2": -d, "k3": 1 - np.exp(d)}[kl_estimator]
                gradient[b, t] += kl_coef * weight * by_new
    metrics |= {"loss/policy": policy, "loss/kl": kl}
    return policy + kl_coef * kl, metrics, gradient


def assert_matches(case, reference=None, **options):
    value, metrics, gradient = value_and_gradient(case, reference_logprobs=reference, **options)
    options = {k: v for k, v in options.items() if reference is not None or k != "kl_estimator"}
    expected = closed_form(case, **options)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5, atol=1e-6)
    assert metrics.keys() == expected[1].keys()
    for name, metric in metrics.items():
        np.testing.assert_allclose(metric, expected[1][name], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(gradient, expected[2], rtol=1e-4, atol=1e-6)
    return metrics
