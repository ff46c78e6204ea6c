"""Random Hugging Face folders, written without any of the code under test."""

import json

import ml_dtypes  # noqa: F401 (gives NumPy bfloat16)
import numpy as np
from safetensors.numpy import load_file, save_file

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": [2, 5],
    "torch_dtype": "float32",
}
QWEN3 = CONFIG | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
QWEN2 = CONFIG | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}


def shapes(config):
    """Name -> shape of every tensor that a Hugging Face folder of this configuration has."""
    d, f, h = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * h, config["num_key_value_heads"] * h
    found = {"model.embed_tokens.weight": (config["vocab_size"], d), "model.norm.weight": (d,)}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], d)
    for i in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm.weight": (d,),
            "post_attention_layernorm.weight": (d,),
            "self_attn.q_proj.weight": (q, d),
            "self_attn.k_proj.weight": (kv, d),
            "self_attn.v_proj.weight": (kv, d),
            "self_attn.o_proj.weight": (d, q),
            "mlp.gate_proj.weight": (f, d),
            "mlp.up_proj.weight": (f, d),
            "mlp.down_proj.weight": (d, f),
        }
        if config["model_type"] == "qwen2":
            layer |= {
                "self_attn.q_proj.bias": (q,),
                "self_attn.k_proj.bias": (kv,),
                "self_attn.v_proj.bias": (kv,),
            }
        if config["model_type"] == "qwen3":
            layer |= {"self_attn.q_norm.weight": (h,), "self_attn.k_norm.weight": (h,)}
        found |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return found


def random_tensors(config, seed=0):
    """Name -> random tensor in the precision that the configuration names."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(config["torch_dtype"])
    return {
        name: rng.standard_normal(shape, np.float32).astype(dtype)
        for name, shape in shapes(config).items()
    }


def write_folder(folder, config=None, tensors=None, files=1):
    """Write config.json and the tensors, spread over so many safetensors files; return these."""
    config = CONFIG if config is None else config
    tensors = random_tensors(config) if tensors is None else tensors
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return tensors
    names, weight_map = sorted(tensors), {}
    for index in range(files):
        file = f"model-{index + 1:05}-of-{files:05}.safetensors"
        save_file({name: tensors[name] for name in names[index::files]}, folder / file)
        weight_map |= dict.fromkeys(names[index::files], file)
    content = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return tensors


def read_tensors(folder):
    """All tensors of a folder, by name."""
    return {
        name: tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
