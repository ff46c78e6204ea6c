"""What a step must cost at least: bytes and FLOPs from the model's shapes alone."""

import math
from collections.abc import Sequence

from alphamed_jax.config import LoraConfig
from alphamed_jax.model import lora, network
from alphamed_jax.model.config import ModelConfig

SCALE_BYTES = 4
"""Of a scale, where numbers are in 8 bits."""


def shards(config: ModelConfig, axis: str | None, tensor: int) -> int:
    """Ways in which a tensor axis of this size splits a logical axis."""
    lengths = {
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "mlp": config.intermediate_size,
        "vocab": config.vocab_size,
    }
    return tensor if axis in lengths and lengths[axis] % tensor == 0 else 1


def decode_weight_bytes(
    config: ModelConfig, tensor: int, width: int = 2, int8: bool = False
) -> int:
    """Bytes of weights that a device reads in a decode step: all but the embedding table.

    A tied table is the head and so read; of one of its own only the rows of the tokens are.

    Args:
      width: bytes of a number in the decode layout.
      int8: matrices and head are in 8 bits, with a float32 scale for each output channel.
    """
    tree = network.weights(config)
    layers = network.layer_weights(config)
    rest = {n: w for n, w in tree.items() if n != "layers" and (n != "embed" or "head" not in tree)}

    def share(shape, axes, each=width):
        return each * math.prod(shape) // math.prod(shards(config, a, tensor) for a in axes)

    def held(spec, summed):
        if not (int8 and summed):
            return share(spec.shape, spec.axes)
        out = [place for place in range(len(spec.shape)) if place not in summed]
        scale = [spec.shape[i] for i in out], [spec.axes[i] for i in out]
        return share(spec.shape, spec.axes, 1) + share(*scale, SCALE_BYTES)

    of_layer = sum(held(spec, range(spec.inputs)) for spec in layers.values())
    ends = (
        held(spec, [spec.axes.index("embed")] if "embed" in spec.axes else [])
        for spec in rest.values()
    )
    return config.num_layers * of_layer + sum(ends)


def cache_bytes(
    config: ModelConfig, rows: int, length: int, tensor: int, width: int = 2, int8: bool = False
) -> int:
    """Bytes of keys and values of `rows` sequences of `length` tokens on a device.

    Args:
      width: bytes of a number.
      int8: in 8 bits, with a float32 scale for each head of a token.
    """
    heads = config.num_kv_heads // shards(config, "kv_heads", tensor)
    of_head = config.head_dim + SCALE_BYTES if int8 else config.head_dim * width
    return 2 * config.num_layers * rows * length * heads * of_head


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


def beside_bytes(
    config: ModelConfig, adapters: LoraConfig, tensor: int, width: int = 2, int8: bool = False
) -> int:
    """Bytes of adapters that a device reads in a decode step, where they stay beside the weights.

    In float32 they are added to the weights once a rollout, unless the weights are in 8 bits.
    """
    if width == 4 and not int8:
        return 0
    share = [
        width * math.prod(spec.shape) // math.prod(shards(config, a, tensor) for a in spec.axes)
        for both in lora.table(config, adapters).values()
        for spec in both.values()
    ]
    return config.num_layers * sum(share)
