"""Adapters beside peft on torch: what either writes the other reads, with equal logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import mesh_like
from parity_cases import VARIANTS, logits_of

from alphamed_jax.config import LoraConfig
from alphamed_jax.model import hf, lora, peft_folder

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
peft = pytest.importorskip("peft", reason="pip install -e '.[parity]'")

from make_golden import build, random_tokens, store  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

CASES = ["llama3_gqa_untied", "smollm2_tied", "qwen2_biases", "qwen3_tied"]


def base_of(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits_in_torch(model, tokens):
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.numpy()


def with_adapter(folder, adapter, mesh="1x1"):
    """The model of a folder with an adapter of another, as we have it."""
    config, params = hf.load(folder, mesh_like(mesh), jnp.float32)
    settings = peft_folder.inspect(adapter, config)
    factors = peft_folder.load(adapter, config, settings, mesh_like(mesh))
    return config, settings, lora.attach(settings, params, factors)


def ours(config, params, tokens):
    return np.asarray(logits_of(config, params, jnp.asarray(tokens, jnp.int32)))


@pytest.mark.parametrize("variant", CASES)
def test_peft_reads_what_we_write_with_equal_logits(tmp_path, variant):
    # Given a model and an adapter on all of its linear layers,
    assert variant in VARIANTS
    store(build(variant), tmp_path / "base")
    config, params = hf.load(tmp_path / "base", mesh_like("2x1"), jnp.float32)
    settings = LoraConfig(rank=3, alpha=6.0)
    factors = lora.fresh_factors(config, settings, mesh_like("2x1"), jax.random.key(0))
    rng = np.random.default_rng(1)
    for both in factors.values():
        drawn = jnp.asarray(0.3 * rng.normal(size=both["b"].shape), jnp.float32)
        both["b"] = jax.device_put(drawn, both["b"].sharding)
    adapted = lora.attach(settings, params, factors)
    tokens = random_tokens(variant)
    # when peft loads the folder beside the base, then its logits are ours,
    peft_folder.save(tmp_path / "adapter", config, settings, factors, str(tmp_path / "base"))
    loaded = peft.PeftModel.from_pretrained(base_of(tmp_path / "base"), tmp_path / "adapter")
    theirs = logits_in_torch(loaded, tokens)
    np.testing.assert_allclose(ours(config, adapted, tokens), theirs, atol=1e-4)
    assert np.abs(theirs - logits_in_torch(base_of(tmp_path / "base"), tokens)).max() > 0.01
    # and so are those of the merged folder in transformers, whose weights peft merges alike.
    hf.save(tmp_path / "export", config, adapted, tmp_path / "base")
    exported = base_of(tmp_path / "export")
    np.testing.assert_allclose(logits_in_torch(exported, tokens), theirs, atol=1e-4)
    merged = loaded.merge_and_unload().state_dict()
    for name, tensor in exported.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), merged[name].numpy(), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("rslora", [False, True])
def test_we_read_what_peft_writes_with_equal_logits(tmp_path, rslora):
    # Given an adapter that peft made, of some layers, moved from where it began,
    variant = "llama3_gqa_untied"
    store(build(variant), tmp_path / "base")
    made = peft.LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=["q_proj", "v_proj", "down_proj"],
        use_rslora=rslora,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(base_of(tmp_path / "base"), made)
    torch.manual_seed(0)
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    # when it is read, then rank and targets are known and the logits are peft's.
    config, settings, params = with_adapter(tmp_path / "base", tmp_path / "adapter", "2x2")
    assert (settings.rank, settings.targets) == (4, ("q", "v", "down"))
    tokens = random_tokens(variant)
    np.testing.assert_allclose(
        ours(config, params, tokens), logits_in_torch(model, tokens), atol=1e-4
    )


def test_adapters_begin_as_those_of_peft(tmp_path):
    variant = "llama3_gqa_untied"
    store(build(variant), tmp_path / "base")
    config, _ = hf.load(tmp_path / "base")
    # On 200 ranks, so that a distribution shows.
    settings = LoraConfig(rank=200, targets=("gate",))
    factors = lora.fresh_factors(config, settings, mesh_like("1x1"), jax.random.key(0))
    made = peft.LoraConfig(r=200, target_modules=["gate_proj"])
    model = peft.get_peft_model(base_of(tmp_path / "base"), made)
    theirs = next(t.detach().numpy() for n, t in model.named_parameters() if "lora_A" in n)
    a = np.asarray(factors["gate"]["a"][0])
    np.testing.assert_allclose(np.abs(a).max(), np.abs(theirs).max(), rtol=0.02)
    np.testing.assert_allclose(a.std(), theirs.std(), rtol=0.05)
