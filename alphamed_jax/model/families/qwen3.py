"""Qwen3, dense: Llama with an RMS norm on each head's queries and keys (arXiv 2505.09388).

The norms have one scale for all heads and come before the rotation. Heads are as wide as the
configuration says, which need not be the hidden size over their number.
"""

from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.families import llama
from alphamed_jax.model.families.family import Family, Spec, Table
from alphamed_jax.model.numerics import rms_norm


def layer_weights(config: ModelConfig) -> Table:
    """Llama's, and the norms."""
    scale = (config.head_dim,), (None,), 0, "ones"
    return llama.layer_weights(config) | {
        "q_norm": Spec("self_attn.q_norm.weight", *scale),
        "k_norm": Spec("self_attn.k_norm.weight", *scale),
    }


def heads(config, w, q, k, v):
    """Queries and keys normed."""
    eps = config.rms_norm_eps
    return rms_norm(q, w.q_norm, eps), rms_norm(k, w.k_norm, eps), v


FAMILY = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    ends=llama.ends,
    layer_weights=layer_weights,
    refused=("attention_bias", "use_sliding_window"),
    written={"attention_bias": False, "use_sliding_window": False},
    default_context=32768,
    default_head_dim=128,
    heads=heads,
)
