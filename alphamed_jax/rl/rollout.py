"""Rollout in one call, for tools and tests; training holds a `Sampler`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Key

from alphamed_jax.model.attention import DENSE, Attention
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.mesh import mesh_of
from alphamed_jax.rl.distribution import Sampling, absent_ids
from alphamed_jax.rl.language_model import Transformer
from alphamed_jax.rl.requests import Request
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.sampler_run import SamplerConfig
from alphamed_jax.rl.trajectories import Trajectories


def generate(
    config: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stop_ids: Sequence[int],
    key: Key[Array, ""],
    first_sequence: int = 0,
    dtype: Any = None,
    attention: Attention = DENSE,
    slots: int | None = None,
    sharded: bool = False,
    int8_weights: bool = False,
    int8_cache: bool = False,
    prompt_width: int = 0,
    known: Bool[np.ndarray, "V"] | None = None,
) -> Trajectories:
    """Sample `group_size` responses to each prompt on the mesh that `params` live on.

    Args:
      prompts: token ids, at least one each.
      stop_ids: any of them ends a response.
      key: fixed for a run; `first_sequence` advances by the number of rows each step.
      first_sequence: sequence id of row 0; row i has `first_sequence + i`.
      temperature: 0 takes the likeliest token each time.
      dtype: compute dtype; None takes that of `params`.
      attention: of the prompts; decoding has its own.
      slots: responses decoded at once over the whole mesh, at least one per data shard; as one
        ends the next takes its place. None: all of them.
      sharded: decode with weights that stay split over `fsdp`.
      int8_weights: decode with matrices and head in 8 bits.
      int8_cache: decode with keys and values in 8 bits.
      prompt_width: pad prompts to this at least, so that batches share their programs.
      known: which ids have a token, as `data.tokenizer.known_tokens` says; the others are never
        sampled. None: all have one.

    Raises:
      ValueError: no prompts, or an empty one.
    """
    dtype = np.dtype(dtype or params["embed"].dtype)
    model = Transformer(config, dtype, attention, sharded, int8_weights, int8_cache)
    sampler = Sampler(
        SamplerConfig(
            model=model,
            sampling=Sampling(temperature or 1.0, top_p, top_k, absent_ids(known)),
            stop_ids=tuple(stop_ids),
            max_new_tokens=max_new_tokens,
            prompts=len(prompts),
            group_size=group_size,
            slots=slots,
            max_prompt=prompt_width,
        ),
        mesh_of(params),
    )
    ids = first_sequence + np.arange(len(prompts) * group_size).reshape(-1, group_size)
    greedy = [not temperature] * group_size
    groups = [
        Request(prompt, of_group.tolist(), greedy=greedy)
        for prompt, of_group in zip(prompts, ids, strict=True)
    ]
    return sampler.sample(sampler.load(params), groups, key)[0]
