"""Llama 2 and 3, and what is stored like them (SmolLM2). The other families start from it."""

from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.families.family import Family, Spec, Table


def ends(config: ModelConfig) -> Table:
    """Table, last norm, and a head that a tied network does not have."""
    v, d = config.vocab_size, config.hidden_size
    return {
        "embed": Spec("model.embed_tokens.weight", (v, d), ("vocab", "embed")),
        "norm": Spec("model.norm.weight", (d,), (None,), init="ones"),
        "head": Spec("lm_head.weight", (d, v), ("embed", "vocab"), inputs=1),
    }


def layer_weights(config: ModelConfig) -> Table:
    """The weights of one layer."""
    d, f = config.hidden_size, config.intermediate_size
    n, k, h = config.num_heads, config.num_kv_heads, config.head_dim
    attention, mlp = "self_attn.{}_proj.weight", "mlp.{}_proj.weight"
    kv = (d, k, h), ("embed", "kv_heads", "head"), 1
    into, out = ((d, f), ("embed", "mlp"), 1), ((f, d), ("mlp", "embed"), 1)
    return {
        "attention_norm": Spec("input_layernorm.weight", (d,), (None,), init="ones"),
        "q": Spec(attention.format("q"), (d, n, h), ("embed", "heads", "head"), 1),
        "k": Spec(attention.format("k"), *kv),
        "v": Spec(attention.format("v"), *kv),
        "o": Spec(attention.format("o"), (n, h, d), ("heads", "head", "embed"), 2, "residual"),
        "mlp_norm": Spec("post_attention_layernorm.weight", (d,), (None,), init="ones"),
        "gate": Spec(mlp.format("gate"), *into),
        "up": Spec(mlp.format("up"), *into),
        "down": Spec(mlp.format("down"), *out, "residual"),
    }


FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    ends=ends,
    layer_weights=layer_weights,
    refused=("attention_bias", "mlp_bias"),
    written={"attention_bias": False, "mlp_bias": False},
    default_context=2048,
)
