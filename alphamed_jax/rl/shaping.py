"""Signals beside the letter, all off by default: what a response is worth beyond right or wrong.

They are added to the binary reward before responses are compared within their group. Whether a
group is effective is still a matter of the binary reward alone: one in which all are right, or all
wrong, teaches nothing about the question, whatever its lengths are.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alphamed_jax.config import RewardConfig
from alphamed_jax.rl.trajectories import ScoredRollouts, Trajectories

Metrics = dict[str, float | int | None]


def soft_overlong(
    lengths: Int[np.ndarray, "B"], longest: int, cache: int
) -> Float[np.ndarray, "B"]:
    """Soft overlong punishment (DAPO, Yu et al. 2025, arXiv 2503.14476, section 3.4, equation 13).

    0 up to L_max - L_cache tokens, then falling on a line to -1 at L_max.

    Args:
      longest: L_max, the longest response that can be sampled.
      cache: L_cache, the tokens before it in which the punishment grows.
    """
    return np.clip((longest - cache - lengths) / cache, -1.0, 0.0).astype(np.float32)


def length_penalty(
    rewards: Float[np.ndarray, "B"], lengths: Int[np.ndarray, "B"], group_size: int, weight: float
) -> Float[np.ndarray, "B"]:
    """What right responses lose for their length (Arora and Zanette 2025, arXiv 2502.04463).

    "Training Language Models to Reason Efficiently": a right response is worth
    1 - weight x sigmoid((length - mean) / deviation), with mean and standard deviation over the
    right responses of its group; a wrong one is worth 0 however long it is. Where all right ones
    are of one length, the sigmoid is 1/2.
    """
    right = rewards.reshape(-1, group_size) == 1
    tokens = lengths.reshape(-1, group_size).astype(np.float64)
    number = np.maximum(right.sum(1, keepdims=True), 1)
    mean = np.where(right, tokens, 0).sum(1, keepdims=True) / number
    variance = np.where(right, (tokens - mean) ** 2, 0).sum(1, keepdims=True) / number
    deviation = np.sqrt(variance)
    distance = np.divide(tokens - mean, deviation, out=np.zeros_like(tokens), where=deviation > 0)
    lost = np.where(right, -weight / (1 + np.exp(-distance)), 0.0)
    return lost.reshape(-1).astype(np.float32)


def shaped_rewards(
    use: RewardConfig,
    rewards: Float[np.ndarray, "B"],
    lengths: Int[np.ndarray, "B"],
    *,
    group_size: int,
    longest: int,
) -> Float[np.ndarray, "B"]:
    """The binary rewards with the signals that are on."""
    shaped = rewards.astype(np.float32)
    if use.overlong_cache is not None:
        shaped = shaped + soft_overlong(lengths, longest, use.overlong_cache)
    if use.length_penalty:
        shaped = shaped + length_penalty(rewards, lengths, group_size, use.length_penalty)
    return shaped


def describe_signals(use: RewardConfig, scored: ScoredRollouts, longest: int) -> Metrics:
    """Metrics of the signals; None where one is off."""
    rewards, lengths, size = scored.rewards, scored.lengths, scored.group_size
    right = rewards == 1
    shaped = overlong = penalty = left_out = None
    if use.shapes:
        learned = shaped_rewards(use, rewards, lengths, group_size=size, longest=longest)
        shaped = float(learned.mean())
    if use.overlong_cache is not None:
        overlong = float(soft_overlong(lengths, longest, use.overlong_cache).mean())
    if use.length_penalty and right.any():
        penalty = float(length_penalty(rewards, lengths, size, use.length_penalty)[right].mean())
    if use.skip_truncated:
        left_out = float((~scored.finished).mean())
    return {
        "reward/shaped": shaped,
        "reward/overlong": overlong,
        "reward/length_penalty": penalty,
        "loss/left_out": left_out,
    }


@jax.jit
def _finished_lengths(lengths: Int[Array, "B"], finished: Bool[Array, "B"]) -> Int[Array, "B"]:
    return jnp.where(finished, lengths, 0)


def without_truncated(
    trajectories: Trajectories, scored: ScoredRollouts
) -> tuple[Trajectories, ScoredRollouts]:
    """Leave truncated responses out of the loss (DAPO's overlong filtering, section 3.4).

    Their tokens get no gradient and do not count in the divisors. They stay in their group: what
    the others are compared with, and whether the group is effective, does not change.
    """
    kept = _finished_lengths(trajectories.lengths, trajectories.finished)
    return (
        dataclasses.replace(trajectories, lengths=kept),
        dataclasses.replace(scored, lengths=np.where(scored.finished, scored.lengths, 0)),
    )
