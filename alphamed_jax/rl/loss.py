"""The GRPO objective on log-probabilities: clipping, aggregation, KL. Closed forms, no model."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alphamed_jax.config import LossConfig

Aggregation = Literal["token_mean", "sequence_mean", "constant"]
KLEstimator = Literal["k1", "k2", "k3"]


class Totals(NamedTuple):
    """Size of the whole batch that a loss is a mean over, whatever part of it is at hand."""

    tokens: Float[Array, ""]
    sequences: Float[Array, ""]


def totals_of(mask: Bool[Array, "B T"]) -> Totals:
    """Totals of a batch that is all at hand; a row without tokens still counts as a sequence."""
    return Totals(mask.sum().astype(jnp.float32), jnp.float32(mask.shape[0]))


def sequence_weights(
    mask: Bool[Array, "B T"],
    totals: Totals,
    aggregation: Aggregation,
    constant_length: int | None,
) -> Float[Array, "B"]:
    """Weight of each token of a row in the loss, so that the loss is a plain weighted sum.

    token_mean: 1 / tokens (DAPO, Yu et al. 2025); sequence_mean: 1 / (sequences x own length)
    (GRPO, Shao et al. 2024); constant: 1 / (sequences x constant_length) (Dr. GRPO, Liu et
    al. 2025).
    """
    ones = jnp.ones(mask.shape[0])
    if aggregation == "token_mean":
        return ones / jnp.maximum(totals.tokens, 1.0)
    if aggregation == "sequence_mean":
        return ones / (totals.sequences * jnp.maximum(mask.sum(-1), 1))
    if constant_length is None:
        raise ValueError("aggregation 'constant' needs constant_length.")
    return ones / (totals.sequences * constant_length)


def kl_estimate(
    logprobs: Float[Array, "B T"], reference_logprobs: Float[Array, "B T"], estimator: KLEstimator
) -> Float[Array, "B T"]:
    """Per-token estimate of KL(policy || reference) from samples of the policy, in nats.

    With d = log reference - log policy: k1 = -d, k2 = d² / 2, k3 = exp(d) - d - 1
    (Schulman, "Approximating KL divergence", 2020). The value of k1 is unbiased but its
    gradient has mean zero; k2 and k3 also pull the policy to the reference.
    """
    d = reference_logprobs - logprobs
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return 0.5 * d * d
    return jnp.exp(d) - d - 1.0


def truncated_weights(
    old_logprobs: Float[Array, "B T"], sampler_logprobs: Float[Array, "B T"], cap: float
) -> Float[Array, "B T"]:
    """Importance weight of each token for a sampler whose numbers are not the trainer's.

    min(exp(old log-probability - sampler's), cap), without gradient. Where both programs compute
    the same distribution it is 1; a token that the sampler held for more likely than the trainer
    does counts less, and the cap bounds the variance (truncated importance sampling, Ionides
    2008; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training").
    """
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(old_logprobs - sampler_logprobs), cap))


def token_losses(
    ratios: Float[Array, "B T"],
    logprobs: Float[Array, "B T"],
    gain: Float[Array, "B 1"],
    use: LossConfig,
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"], Bool[Array, "B T"]]:
    """Loss of each token with advantage A = `gain`, and where its ratio r is clipped, low and high.

    clip: max(-A r, -A clip(r)), so that beyond the bound a token gets no gradient (PPO, Schulman et
    al. 2017; separate bounds: DAPO, Yu et al. 2025).
    cispo: -A sg(clip(r)) log-probability: each token gets a gradient, and clipping bounds its
    weight (CISPO, MiniMax-M1, 2025, arXiv 2506.13585, equations 4 and 5).
    """
    bounded = jnp.clip(ratios, 1.0 - use.clip_low, 1.0 + use.clip_high)
    low, high = ratios < 1.0 - use.clip_low, ratios > 1.0 + use.clip_high
    if use.variant == "cispo":
        return -gain * jax.lax.stop_gradient(bounded) * logprobs, low, high
    loss = jnp.maximum(-gain * ratios, -gain * bounded)
    if use.dual_clip is not None:
        loss = jnp.where(gain < 0, jnp.minimum(loss, -gain * use.dual_clip), loss)
    return loss, low & (gain < 0), high & (gain > 0)


def policy_loss(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B"],
    mask: Bool[Array, "B T"],
    *,
    section: LossConfig | None = None,
    reference_logprobs: Float[Array, "B T"] | None = None,
    sampler_logprobs: Float[Array, "B T"] | None = None,
    totals: Totals | None = None,
    **settings: Any,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Clipped surrogate loss to be minimised, and its metrics.

    Args:
      logprobs: log-probabilities of the sampled tokens under the policy being trained (nats).
      old_logprobs: the same under the policy that sampled, as the trainer computes them.
      advantages: one per response.
      mask: True on response tokens, the first stop id included.
      section: settings of the loss, as `LossConfig` explains them; None: its defaults.
      reference_logprobs: the same under the reference policy; None: no KL term.
      sampler_logprobs: the same under the policy that sampled, as the sampler computed them;
        read only with `tis_cap`.
      totals: size of the whole batch. Losses and metrics of its parts then add up to the
        loss and metrics of the whole, exactly; None: the rows given are the whole.
      settings: fields of `LossConfig` (clip_low=0.2, aggregation="constant", ...), in place of
        those of `section`.

    Returns:
      The loss, and `loss/policy`, `loss/kl` and, as means over `totals.tokens`, `clip/low`,
      `clip/high` (share of tokens whose gradient the clip removes, or bounds: `cispo`),
      `ratio/mean`, `tis/weight` and `tis/truncated` (share of tokens whose weight is the cap; 1
      and 0 without one).
      Whatever stands where `mask` is False, NaN included, changes nothing.

    Raises:
      ValueError: `tis_cap` without `sampler_logprobs`, or aggregation `constant` without
        `constant_length`.
    """
    use = dataclasses.replace(section or LossConfig(), **settings)
    if totals is None:
        totals = totals_of(mask)
    weight = sequence_weights(mask, totals, use.aggregation, use.constant_length)[:, None]
    logprobs = jnp.where(mask, logprobs, 0.0)
    old_logprobs = jnp.where(mask, old_logprobs, 0.0)
    log_ratio = logprobs - old_logprobs
    if use.ratio == "sequence":
        mean = log_ratio.sum(-1, keepdims=True) / jnp.maximum(mask.sum(-1, keepdims=True), 1)
        log_ratio = jnp.broadcast_to(mean, mask.shape)
    ratios = jnp.exp(log_ratio)
    gain = advantages[:, None]
    loss, low, high = token_losses(ratios, logprobs, gain, use)
    trust = jnp.ones(mask.shape)
    if use.tis_cap is not None:
        if sampler_logprobs is None:
            raise ValueError("tis_cap needs sampler_logprobs.")
        sampler_logprobs = jnp.where(mask, sampler_logprobs, 0.0)
        trust = truncated_weights(old_logprobs, sampler_logprobs, use.tis_cap)
        loss = trust * loss
    policy = jnp.where(mask, weight * loss, 0.0).sum()
    kl = jnp.float32(0.0)
    if reference_logprobs is not None:
        reference_logprobs = jnp.where(mask, reference_logprobs, logprobs)
        estimate = kl_estimate(logprobs, reference_logprobs, use.kl_estimator)
        kl = jnp.where(mask, weight * estimate, 0.0).sum()

    def share(x):
        return jnp.where(mask, x, 0.0).sum() / jnp.maximum(totals.tokens, 1.0)

    metrics = {
        "loss/policy": policy,
        "loss/kl": kl,
        "clip/low": share(low),
        "clip/high": share(high),
        "ratio/mean": share(ratios),
        "tis/weight": share(trust),
        "tis/truncated": share(
            jnp.zeros(mask.shape) if use.tis_cap is None else trust >= use.tis_cap
        ),
    }
    return policy + use.kl_coef * kl, jax.lax.stop_gradient(metrics)
