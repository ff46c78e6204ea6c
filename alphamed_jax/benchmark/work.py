"""The least work of a step of responses of given lengths, from `compiled.closed_form`."""

import numpy as np
from jaxtyping import Bool, Int

from alphamed_jax.compiled import closed_form
from alphamed_jax.compiled.closed_form import causal_pairs, forward_flops
from alphamed_jax.config import LoraConfig
from alphamed_jax.model import lora
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.network import count_parameters


def prefill_flops(config: ModelConfig, prompt_lengths: Int[np.ndarray, "P"]) -> int:
    """Each prompt once, and no logits."""
    pairs = sum(causal_pairs(n, []) for n in prompt_lengths.tolist())
    return forward_flops(config, int(prompt_lengths.sum()), 0, pairs)


def decode_flops(
    config: ModelConfig, prompt_lengths: Int[np.ndarray, "P"], lengths: Int[np.ndarray, "P G"]
) -> int:
    """Every token but a response's last goes through the layers, and each has its logits."""
    fed = lengths - 1
    pairs = int((prompt_lengths[:, None] * fed + fed * (fed + 1) // 2).sum())
    return forward_flops(config, int(fed.sum()), int(lengths.sum()), pairs)


def decode_bytes(
    config: ModelConfig,
    prompt_lengths: Int[np.ndarray, "P"],
    lengths: Int[np.ndarray, "P G"],
    steps: int,
    itemsize: int,
    int8_weights: bool = False,
    int8_cache: bool = False,
) -> int:
    """Weights once a step, and all keys and values that a token sees; a prompt's once a group."""
    fed = lengths - 1
    own = int((fed * (fed + 1) // 2).sum())
    prompt = int((prompt_lengths * fed.max(axis=1)).sum())
    place = closed_form.cache_bytes(config, 1, 1, 1, itemsize, int8_cache)
    weights = closed_form.decode_weight_bytes(config, 1, itemsize, int8_weights)
    return steps * weights + place * (own + prompt)


def update_flops(
    config: ModelConfig,
    prompt_lengths: Int[np.ndarray, "P"],
    lengths: Int[np.ndarray, "P G"],
    trained: Bool[np.ndarray, "P"],
    adapters: LoraConfig = LoraConfig(),
) -> int:
    """Forward and backward of the groups `trained`, each prompt once, head on responses only."""
    return sum(
        closed_form.update_flops(config, 1, prompt, group, adapters)
        for prompt, group, wanted in zip(
            prompt_lengths.tolist(), lengths.tolist(), trained.tolist(), strict=True
        )
        if wanted
    )


def optimizer_bytes(config: ModelConfig, adapters: LoraConfig = LoraConfig()) -> int:
    """Read what learns, its gradient and two moments, write it and the moments; float32."""
    return 7 * 4 * (lora.count_parameters(config, adapters) or count_parameters(config))
