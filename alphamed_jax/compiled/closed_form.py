"""What a step must cost at least: bytes and FLOPs from the model's shapes alone."""

import math
from collections.abc import Sequence

from alphamed_jax.config import LoraConfig
from alphamed_jax.model import lora, network
from alphamed_jax.model.config import ModelConfig


def shards(config: ModelConfig, axis: str | None, tensor: int) -> int:
    """Ways in which a tensor axis of this size splits a logical axis."""
    lengths = {
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "mlp": config.intermediate_size,
        "vocab": config.vocab_size,
    }
    return tensor if axis in lengths and lengths[axis] % tensor == 0 else 1


def decode_weight_bytes(config: ModelConfig, tensor: int, width: int = 2) -> int:
    """Bytes of weights that a device reads in a decode step: all but the embedding table.

    A tied table is the head and so read; of one of its own only the rows of the tokens are.

    Args:
      width: bytes of a number in the decode layout.
    """
    tree = network.weights(config)
    if not config.tie_embeddings:
        del tree["embed"]

    def share(shape, axes):
        return width * math.prod(shape) // math.prod(shards(config, a, tensor) for a in axes)

    layers = network.map_weights(share, tree.pop("layers"))
    rest = network.map_weights(share, tree)
    return sum(layers.values()) + sum(rest.values())


def cache_bytes(config: ModelConfig, rows: int, length: int, tensor: int, width: int = 2) -> int:
    """Bytes of keys and values of `rows` sequences of `length` tokens on a device."""
    heads = config.num_kv_heads // shards(config, "kv_heads", tensor)
    return 2 * config.num_layers * rows * length * heads * config.head_dim * width


def causal_pairs(prompt: int, responses: Sequence[int]) -> int:
    """Query-key pairs of a prompt and responses to it, each query with what it sees."""
    own = sum(n * prompt + n * (n + 1) // 2 for n in responses)
    return prompt * (prompt + 1) // 2 + own


def forward_flops(config: ModelConfig, tokens: int, head_tokens: int, pairs: int) -> int:
    """FLOPs of the matrix products of a forward pass, on all devices together.

    Two for each weight of a layer and token, and of the head where logits are needed; four for
    each pair of query and key, head and head width. (Kaplan et al. 2020, section 2.1.)
    """
    sizes = (
        math.prod(spec.shape) for spec in network.layer_weights(config).values() if spec.inputs
    )
    head = 2 * config.hidden_size * config.vocab_size * head_tokens
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * pairs
    return 2 * config.num_layers * sum(sizes) * tokens + head + attention


def update_flops(
    config: ModelConfig,
    prompts: int,
    prompt: int,
    responses: Sequence[int],
    adapters: LoraConfig = LoraConfig(),
) -> int:
    """FLOPs of forward and backward pass without recomputation: three times the forward's.

    A frozen weight has no gradient of its own: with adapters its products count twice, and those of
    attention and of the adapters three times.

    Args:
      responses: lengths of the responses to each prompt; their tokens alone need logits.
    """
    trained = prompts * sum(responses)
    tokens, pairs = prompts * prompt + trained, prompts * causal_pairs(prompt, responses)
    forward = forward_flops(config, tokens, trained, pairs)
    if not adapters.rank:
        return 3 * forward
    thin = 3 * 2 * tokens * lora.count_parameters(config, adapters)
    return 2 * forward + forward_flops(config, 0, 0, pairs) + thin


def beside_bytes(config: ModelConfig, adapters: LoraConfig, tensor: int, width: int = 2) -> int:
    """Bytes of adapters that a device reads in a decode step, where they stay beside the weights.

    In float32 they are added to the weights once a rollout.
    """
    if width == 4:
        return 0
    share = [
        width * math.prod(spec.shape) // math.prod(shards(config, a, tensor) for a in spec.axes)
        for both in lora.table(config, adapters).values()
        for spec in both.values()
    ]
    return config.num_layers * sum(share)
