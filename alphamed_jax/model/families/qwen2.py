"""Qwen2 and 2.5: Llama with a bias on queries, keys and values (arXiv 2407.10671)."""

from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.families import llama
from alphamed_jax.model.families.family import Family, Spec, Table
from alphamed_jax.model.numerics import add_bias


def layer_weights(config: ModelConfig) -> Table:
    """Llama's, and the biases."""
    n, k, h = config.num_heads, config.num_kv_heads, config.head_dim
    kv = (k, h), ("kv_heads", "head"), 0, "zeros"
    return llama.layer_weights(config) | {
        "q_bias": Spec("self_attn.q_proj.bias", (n, h), ("heads", "head"), 0, "zeros"),
        "k_bias": Spec("self_attn.k_proj.bias", *kv),
        "v_bias": Spec("self_attn.v_proj.bias", *kv),
    }


def heads(config, w, q, k, v):
    """With their biases."""
    return add_bias(q, w.q_bias), add_bias(k, w.k_bias), add_bias(v, w.v_bias)


FAMILY = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    ends=llama.ends,
    layer_weights=layer_weights,
    refused=("use_sliding_window",),
    written={"use_sliding_window": False},
    default_context=32768,
    heads=heads,
)
