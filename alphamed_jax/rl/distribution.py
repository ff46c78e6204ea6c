"""The sampled distribution: temperature, top-k, top-p; its log-probabilities and draws from it.

Sampler and trainer both use this file, so that they speak of the same distribution.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

# A dropped token's logit. Finite, so that gradients of rows without advantage stay finite.
DROPPED = -1e30


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, at a temperature above 0; top_k 0 and top_p 1 keep everything."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    absent: tuple[tuple[int, int], ...] = ()
    """Ranges (first, end) of ids without a token, as `absent_ids` gives them: embedding rows that
    only fill up a table. They have no part in the distribution, whatever their logits."""

    @property
    def filtered(self) -> bool:
        """Whether any token can be dropped."""
        return self.top_k > 0 or self.top_p < 1.0


def absent_ids(known: Bool[np.ndarray, "V"] | None) -> tuple[tuple[int, int], ...]:
    """Ranges (first, end) of the ids that `known` says have no token; None: all have one.

    Static, so that a program tells them by comparing ids: nothing is read, and a vocabulary that
    is split over devices is no matter.

    Raises:
      ValueError: no id has a token.
    """
    if known is None:
        return ()
    if not np.any(known):
        raise ValueError("no id has a token: nothing can be sampled.")
    edges = np.flatnonzero(np.diff(np.concatenate([[True], known, [True]]).astype(np.int8)))
    return tuple((int(first), int(end)) for first, end in edges.reshape(-1, 2))


def without_absent(
    logits: Float[Array, "*n"], sampling: Sampling, vocabulary_axis: int = -1
) -> Float[Array, "*n"]:
    """Logits with those of ids without a token at -1e30, so that their gradient is zero."""
    axis = vocabulary_axis % logits.ndim
    for first, end in sampling.absent:
        ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis)
        logits = jnp.where((ids >= first) & (ids < end), DROPPED, logits)
    return logits


def _largest_threshold(keys: jax.Array, enough) -> jax.Array:
    """The largest int32 `t` per row for which `enough(keys >= t)`; `enough` shrinks as t grows.

    Bisection over 31 bits costs 31 passes over a row and no sort, and works on a row that is
    split over devices.
    """

    def halve(i, low):
        candidate = low + (jnp.int32(1) << (30 - i))
        return jnp.where(enough(keys >= candidate), candidate, low)

    start = jnp.zeros_like(keys[..., :1])
    return jax.lax.fori_loop(0, 31, halve, start)


def kept_tokens(logits: Float[Array, "*B V"], sampling: Sampling) -> Bool[Array, "*B V"]:
    """Which tokens top-k, then top-p of what is left, keep. Ties at the border are all kept.

    Top-p keeps the smallest set of most likely tokens whose mass reaches top_p
    (Holtzman et al. 2020).
    """
    probabilities = jax.nn.softmax(logits, axis=-1)
    # Non-negative floats are ordered as their bit patterns.
    keys = jax.lax.bitcast_convert_type(probabilities, jnp.int32)
    kept = jnp.ones_like(logits, bool)
    if 0 < sampling.top_k < logits.shape[-1]:
        threshold = _largest_threshold(
            keys, lambda above: above.sum(-1, keepdims=True) >= sampling.top_k
        )
        kept = keys >= threshold
    if sampling.top_p < 1.0:
        left = jnp.where(kept, probabilities, 0.0)
        wanted = sampling.top_p * left.sum(-1, keepdims=True)
        keys = jnp.where(kept, keys, 0)
        threshold = _largest_threshold(
            keys, lambda above: jnp.where(above, left, 0.0).sum(-1, keepdims=True) >= wanted
        )
        kept &= keys >= threshold
    return kept


def shape_logits(
    logits: Float[Array, "*B V"],
    sampling: Sampling,
    always: Bool[Array, "*B V"] | None = None,
    vocabulary_axis: int = -1,
) -> Float[Array, "*B V"]:
    """Logits of the sampled distribution: divided by the temperature, dropped tokens at -1e30.

    Ids without a token are dropped first. `always` marks tokens that stay whatever the filters
    say: the trainer keeps the token that was sampled, which a rounding difference could otherwise
    drop at the border. Filters want the vocabulary last.
    """
    logits = without_absent(logits / sampling.temperature, sampling, vocabulary_axis)
    if not sampling.filtered:
        return logits
    kept = kept_tokens(jax.lax.stop_gradient(logits), sampling)
    if always is not None:
        kept |= always
    return jnp.where(kept, logits, DROPPED)


def logprobs_and_entropy(
    logits: Float[Array, "*B V"], tokens: Int[Array, "*B"], sampling: Sampling
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Log-probability of `tokens` under the sampled distribution, and its entropy, in nats.

    The token's logit is picked by a masked sum, which fuses with the reductions and needs no
    gather over a vocabulary that is split over devices. The entropy carries no gradient.
    """
    chosen = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == tokens[..., None]
    logits = shape_logits(logits, sampling, always=chosen)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    logprobs = jnp.where(chosen, logits, 0.0).sum(-1) - normaliser
    fixed, fixed_normaliser = jax.lax.stop_gradient((logits, normaliser))
    probabilities = jnp.exp(fixed - fixed_normaliser[..., None])
    # A dropped token has probability 0 and logit -1e30; 0 x -1e30 is 0, as its limit.
    entropy = fixed_normaliser - (probabilities * fixed).sum(-1)
    return logprobs, entropy


def block_width(vocabulary: int) -> int:
    """Width of the blocks `draw` cuts the vocabulary into: about sqrt(V).

    Depends on V alone, so that a draw is the same on every mesh. Where 64 divides V the number
    of blocks is a multiple of 64, so that a tensor axis cuts between blocks.
    """
    whole = vocabulary // 64 if vocabulary % 64 == 0 else vocabulary
    divisors = [d for d in range(1, whole + 1) if whole % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / math.sqrt(vocabulary))))


def _pick(weights: Float[Array, "B n"], uniform: Float[Array, "B"]) -> Int[Array, "B"]:
    """Index drawn in proportion to non-negative `weights`; never one of weight 0."""
    edges = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), -1.0)
    target = uniform * edges.max(-1)
    return jnp.argmax(edges > target[:, None], axis=-1)


def draw(
    keys: Key[Array, "B"],
    logits: Float[Array, "B V"] | Float[Array, "V B"],
    sampling: Sampling,
    greedy: Bool[Array, "B"] | None = None,
    vocabulary_first: bool = False,
) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
    """Draw a token per row, and its log-probability under the sampled distribution.

    Two-level inversion: first a block of the vocabulary, then a token within it. It takes two
    uniform numbers per row where the Gumbel trick takes V, and each level adds about sqrt(V)
    numbers, so that rounding moves few borders.

    A `greedy` row takes its likeliest token, the first of several, with log-probability 0: all
    others weigh nothing there, and 0 takes the place of its uniform numbers. That adds no pass
    over the vocabulary, and one program serves both kinds of rows.

    `vocabulary_first` says that the logits are [V B], as products with output-major weights
    leave them; to turn them on a CPU takes as long as to make them.
    """
    if vocabulary_first and sampling.filtered:
        logits, vocabulary_first = logits.T, False
    axis = 0 if vocabulary_first else 1
    logits = shape_logits(logits, sampling, vocabulary_axis=axis)
    greedy = jnp.zeros(keys.shape, bool) if greedy is None else greedy
    vocabulary, rows = logits.shape[axis], keys.shape[0]
    width = block_width(vocabulary)
    below = logits - logits.max(axis, keepdims=True)
    weights = jnp.where(jnp.expand_dims(greedy, axis), below == 0, jnp.exp(below))
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    uniform = jnp.where(greedy[:, None], 0.0, uniform)
    if vocabulary_first:
        blocks = weights.reshape(vocabulary // width, width, rows)
        mass = blocks.sum(1).T
        block = _pick(mass, uniform[:, 0])
        inside = jnp.take_along_axis(blocks, block[None, None, :], axis=0)[0].T
    else:
        blocks = weights.reshape(rows, vocabulary // width, width)
        mass = blocks.sum(-1)
        block = _pick(mass, uniform[:, 0])
        inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    place = _pick(inside, uniform[:, 1])
    weight = jnp.take_along_axis(inside, place[:, None], axis=1)[:, 0]
    return block * width + place, jnp.where(greedy, 0.0, jnp.log(weight / mass.sum(-1)))
