"""Networks on which we are compared with the reference implementation, and how.

Each variant is a tiny Llama or Qwen2 in the keys of config.json; `make_golden` builds it in torch.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax.model import network
from alphamed_jax.model.dense import causal_attention

TOLERANCE = 1e-4


def _llama3(factor):
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


BASE = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
LONG = {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 500000.0}

VARIANTS = {
    "llama2_mha_untied": BASE | {"num_key_value_heads": 4},
    "llama3_gqa_untied": BASE | {"rope_theta": 500000.0, "num_hidden_layers": 3},
    "llama31_factor8": BASE | LONG | {"head_dim": 64, "rope_scaling": _llama3(8.0)},
    "llama32_factor32_tied": BASE
    | LONG
    | {"head_dim": 128, "rope_scaling": _llama3(32.0), "tie_word_embeddings": True},
    "smollm2_tied": BASE
    | {
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
    },
    "own_head_dim_eps_theta": BASE | {"head_dim": 10, "rms_norm_eps": 0.03, "rope_theta": 777.0},
    "qwen2_biases": BASE | {"model_type": "qwen2", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0},
    "qwen3_tied": BASE
    | {
        "model_type": "qwen3",
        "head_dim": 10,  # four heads of it are wider than the hidden size of 24
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "qwen3_untied": BASE | {"model_type": "qwen3", "head_dim": 16, "rms_norm_eps": 1e-6},
}


def length(variant):
    """Scaled rotary embeddings show at positions beyond 1000; the others need no length."""
    return 1200 if "rope_scaling" in VARIANTS[variant] else 40


def compared_positions(variant):
    """Positions kept in the golden files: the first few, the last few and some between."""
    tokens = length(variant)
    return np.unique(np.concatenate([np.arange(4), np.linspace(4, tokens - 1, 12).astype(int)]))


@functools.partial(jax.jit, static_argnums=0)
def layer_outputs(config, params, tokens):
    """Our residual stream, each [B T D]: embeddings, after each layer, after the final norm."""
    rows, count = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(count), (rows, count))
    rope = network.rope_table(config, positions)

    def as_used(config, layer_params):
        return network.gathered(config, layer_params, jnp.float32)

    def step(x, layer_params):
        x = network.block(config, as_used(config, layer_params), x, rope, causal_attention)[0]
        return x, x

    first = network.embed(config, params, tokens, jnp.float32)
    last, states = jax.lax.scan(step, first, params["layers"])
    final = network.rms_norm(last, params["norm"], config.rms_norm_eps)
    return jnp.concatenate([first[None], states, final[None]])


logits_of = jax.jit(network.logits, static_argnums=0)


def assert_same_logits(config, params, tokens, states, logits, positions):
    """Compare the logits; a failure names the first layer that differs."""
    tokens = jnp.asarray(tokens, jnp.int32)
    gap = np.abs(np.asarray(logits_of(config, params, tokens))[:, positions] - logits).max()
    if not gap < TOLERANCE:
        assert_same_layers(config, params, tokens, states, positions)
        raise AssertionError(f"logits differ by {gap:.2e} although every layer agrees")


def assert_same_layers(config, params, tokens, states, positions):
    """Compare layer by layer with the reference's hidden states at `positions`.

    `states` are the embeddings, then what leaves each layer but the last (the reference shows
    that only after the final norm), then what leaves the final norm.
    """
    names = ["embeddings", *(f"layer {i}" for i in range(config.num_layers - 1)), "final norm"]
    ours = np.asarray(layer_outputs(config, params, jnp.asarray(tokens, jnp.int32)))
    for name, value, reference in zip(names, np.delete(ours, -2, axis=0), states, strict=True):
        gap = np.abs(value[:, positions] - reference).max()
        assert gap < TOLERANCE, f"{name}: hidden states differ by {gap:.2e}"
