"""Shapes of well-known models by hub id, so that they can be planned for and timed without a file.

Source: the config.json of each repository on the Hugging Face hub.
"""

from alphamed_jax.model.config import ModelConfig, RopeScaling


def _llama3(
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    *,
    head_dim: int = 128,
    factor: float = 8.0,
    tie: bool = False,
) -> ModelConfig:
    return ModelConfig(
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=head_dim,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(factor, 1.0, 4.0, 8192),
        tie_embeddings=tie,
        max_position_embeddings=131072,
        dtype="bfloat16",
    )


LLAMA_1B = _llama3(2048, 8192, 16, 32, head_dim=64, factor=32.0, tie=True)
LLAMA_3B = _llama3(3072, 8192, 28, 24, factor=32.0, tie=True)
LLAMA_8B = _llama3(4096, 14336, 32, 32)
LLAMA_70B = _llama3(8192, 28672, 80, 64)

# The instruct variant of each is the same network.
_BASES = {
    "meta-llama/Llama-3.2-1B": LLAMA_1B,
    "meta-llama/Llama-3.2-3B": LLAMA_3B,
    "meta-llama/Llama-3.1-8B": LLAMA_8B,
    "meta-llama/Llama-3.1-70B": LLAMA_70B,
}
KNOWN = {
    **_BASES,
    **{f"{name}-Instruct": shape for name, shape in _BASES.items()},
    "meta-llama/Llama-3.3-70B-Instruct": LLAMA_70B,
}
