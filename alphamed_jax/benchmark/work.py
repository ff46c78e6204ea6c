"""The work of a step in closed form: what must be computed and what must be read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from alphamed_jax.model.llama import LlamaConfig, count_parameters


class Products(NamedTuple):
    """Floating-point operations of a forward pass, matrix products only; two per multiply-add."""

    layers_per_token: float
    head_per_token: float
    attention_per_pair: float
    """Per query and key that it sees: scores and mixture, in all layers."""

    @classmethod
    def of(cls, config: LlamaConfig) -> "Products":
        """Of a network of this shape."""
        vocabulary = config.vocab_size * config.hidden_size
        tables = vocabulary * (1 if config.tie_embeddings else 2)
        norms = config.hidden_size * (2 * config.num_layers + 1)
        matrices = count_parameters(config) - tables - norms
        return cls(
            2.0 * matrices,
            2.0 * vocabulary,
            4.0 * config.num_layers * config.num_heads * config.head_dim,
        )


def causal_pairs(lengths: Int[np.ndarray, "*B"]) -> float:
    """Pairs of query and key in causal sequences of these lengths."""
    lengths = lengths.astype(np.float64)
    return float((lengths * (lengths + 1) / 2).sum())


def prefill_flops(config: LlamaConfig, prompt_lengths: Int[np.ndarray, "P"]) -> float:
    """Each prompt once."""
    cost = Products.of(config)
    return cost.layers_per_token * float(
        prompt_lengths.sum()
    ) + cost.attention_per_pair * causal_pairs(prompt_lengths)


def decode_flops(
    config: LlamaConfig, prompt_lengths: Int[np.ndarray, "P"], lengths: Int[np.ndarray, "P G"]
) -> float:
    """Every token but a response's last goes through the layers, every token through the head."""
    cost = Products.of(config)
    fed = float((lengths - 1).sum())
    pairs = causal_pairs(lengths - 1) + float((prompt_lengths[:, None] * (lengths - 1)).sum())
    return (
        cost.layers_per_token * fed
        + cost.head_per_token * float(lengths.sum())
        + cost.attention_per_pair * pairs
    )


def update_flops(
    config: LlamaConfig,
    prompt_lengths: Int[np.ndarray, "P"],
    lengths: Int[np.ndarray, "P G"],
    trained: Sequence[bool],
) -> float:
    """Forward and backward of the groups `trained`, each prompt once, head on responses only."""
    cost, chosen = Products.of(config), np.asarray(trained, bool)
    prompts, own = prompt_lengths[chosen], lengths[chosen]
    pairs = causal_pairs(prompts) + causal_pairs(own) + float((prompts[:, None] * own).sum())
    tokens = float(prompts.sum() + own.sum())
    forward = (
        cost.layers_per_token * tokens
        + cost.head_per_token * float(own.sum())
        + cost.attention_per_pair * pairs
    )
    return 3 * forward


def decode_bytes(
    config: LlamaConfig,
    prompt_lengths: Int[np.ndarray, "P"],
    lengths: Int[np.ndarray, "P G"],
    steps: int,
    itemsize: int,
) -> float:
    """Weights once a step, and every key and value that a token sees; a prompt's once a group."""
    per_place = 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize
    own = causal_pairs(lengths - 1)
    prompt = float((prompt_lengths * (lengths.max(axis=1) - 1)).sum())
    weights = count_parameters(config) * itemsize
    if not config.tie_embeddings:  # of the embedding table only the rows of the tokens
        weights -= config.vocab_size * config.hidden_size * itemsize
    return steps * weights + per_place * (own + prompt)


def optimizer_bytes(config: LlamaConfig) -> float:
    """Read weights, gradient and two moments, write weights and moments; float32."""
    return 7 * 4 * count_parameters(config)
