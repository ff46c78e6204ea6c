"""What a rollout samples."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class Trajectories(NamedTuple):
    """Prompts and what was sampled after them. Nothing is inferred from ids: lengths rule."""

    prompt_tokens: Int[Array, "P Tp"]
    prompt_lengths: Int[Array, "P"]
    tokens: Int[Array, "B T"]
    """Response ids, the stop id included, then zeros."""
    lengths: Int[Array, "B"]
    """Response length, counting the stop id."""
    logprobs: Float[Array, "B T"]
    """Log-probability of each token under the distribution it was drawn from, in nats."""
    finished: Bool[Array, "B"]
    """Whether a stop id ended the response; False: it was truncated."""
