"""Log-probabilities of given responses under the policy, differentiable: the trainer's forward.

A sequence is a prompt and packed rows of responses to it. The prompt is forwarded once; each
response sees the prompt's keys and its own, never its neighbour's. Logits exist for one chunk
of response tokens at a time: no array of size B x T x V is made, forward or backward.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alphamed_jax.model import network
from alphamed_jax.model.attention import DENSE, Attention, prefix_attend
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.mesh import context_data_shards
from alphamed_jax.rl.batch import GroupBatch
from alphamed_jax.rl.chunks import chunk_length, chunked_logprobs
from alphamed_jax.rl.distribution import Sampling


class Compute(NamedTuple):
    """How the forward pass is computed; but for rounding it changes memory and speed alone."""

    dtype: Any = jnp.float32
    remat: network.Remat = "none"
    logits_chunk: int = 2048
    """Tokens per data shard whose logits exist at once."""
    attention: Attention = DENSE


def policy_logprobs(
    config: ModelConfig,
    params: Params,
    micro: GroupBatch,
    sampling: Sampling,
    compute: Compute,
) -> tuple[Float[Array, "P G T"], Float[Array, "P G T"]]:
    """Log-probability and entropy (nats) at each token of a micro-batch's responses.

    What stands at padding is arbitrary.
    """
    prompts = micro.prompt_tokens, micro.prompt_lengths
    if micro.packing is None:
        length = micro.tokens.shape[-1]
        place = jnp.broadcast_to(jnp.arange(length), micro.tokens.shape)
        return packed_logprobs(
            config, params, *prompts, micro.tokens, place, None, sampling, compute
        )
    groups, _, length = micro.tokens.shape
    source, starts = micro.packing
    pick = jax.vmap(lambda row, index: row[index])
    used = jnp.maximum(source, 0)
    tokens = pick(micro.tokens.reshape(groups, -1), used)
    segment_ids = jnp.where(source >= 0, used // length, -1)
    found = packed_logprobs(
        config, params, *prompts, tokens, used % length, segment_ids, sampling, compute
    )
    back = jnp.minimum(starts[..., None] + jnp.arange(length), source[0].size - 1)
    logprobs, entropy = (pick(x.reshape(groups, -1), back) for x in found)
    return logprobs, entropy


def packed_logprobs(
    config: ModelConfig,
    params: Params,
    prompt_tokens: Int[Array, "P Tp"],
    prompt_lengths: Int[Array, "P"],
    tokens: Int[Array, "P n T"],
    place: Int[Array, "P n T"],
    segment_ids: Int[Array, "P n T"] | None,
    sampling: Sampling,
    compute: Compute,
) -> tuple[Float[Array, "P n T"], Float[Array, "P n T"]]:
    """Log-probability and entropy (nats) of the tokens in n packed rows beside each prompt.

    Args:
      place: place of each token in its response; at 0 the prompt's last token predicts it.
      segment_ids: which response a token belongs to, where rows hold several; None: one each.
    """
    prompts, prompt_width = prompt_tokens.shape
    _, rows, length = tokens.shape
    sequence = jnp.concatenate([prompt_tokens, tokens.reshape(prompts, -1)], axis=1)
    prompt_positions = jnp.broadcast_to(jnp.arange(prompt_width), (prompts, prompt_width))
    own_positions = (prompt_lengths[:, None, None] + place).reshape(prompts, -1)
    positions = jnp.concatenate([prompt_positions, own_positions], axis=1)

    attend = prefix_attend(
        compute.attention, prompt_lengths, prompt_width, (prompts, rows, length), segment_ids
    )
    x = network.embed(config, params, sequence, compute.dtype)
    x, _ = network.run_layers(config, params, x, positions, attend, remat=compute.remat)

    # The token before predicts: the prompt's last for the first of each response.
    last = jnp.take_along_axis(x, (prompt_lengths - 1)[:, None, None], axis=1)[:, :, None]
    own = x[:, prompt_width:].reshape(prompts, rows, length, -1)
    before = jnp.concatenate([own[:, :, :1], own[:, :, :-1]], axis=2)
    # The prompt's last token predicts many: cast there and back, its gradient adds up in float32.
    wide = jnp.broadcast_to(last.astype(jnp.float32), own.shape).astype(own.dtype)
    predictors = jnp.where(place[..., None] == 0, wide, before)

    here = -(-prompts // context_data_shards())
    chunk = chunk_length(here * rows, length, compute.logits_chunk)
    head = network.head_weights(config, params)
    return chunked_logprobs(config, sampling, chunk, head, predictors, tokens)
