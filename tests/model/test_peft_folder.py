"""Adapters in folders as peft has them: names and shapes by hand, there and back, and refusals."""

import json

import jax
import numpy as np
import pytest
from helpers import TINY, mesh_like
from safetensors.numpy import load_file, save_file

from alphamed_jax.config import LoraConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model import lora, peft_folder

SETTINGS = LoraConfig(rank=3, alpha=6.0, targets=("q", "o", "down"))
# Stored as [out, in]: 64 features, 8 heads of 8, 128 of the feed-forward part.
SHAPES = {
    "self_attn.q_proj.lora_A": (3, 64),
    "self_attn.q_proj.lora_B": (64, 3),
    "self_attn.o_proj.lora_A": (3, 64),
    "self_attn.o_proj.lora_B": (64, 3),
    "mlp.down_proj.lora_A": (3, 128),
    "mlp.down_proj.lora_B": (64, 3),
}


def random_factors(mesh="1x1", settings=SETTINGS):
    """Adapters of numbers that are all different."""
    shapes = lora.abstract_factors(TINY, settings, mesh_like(mesh))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), drawn, shapes)


@pytest.fixture
def folder(tmp_path):
    peft_folder.save(tmp_path / "adapter", TINY, SETTINGS, random_factors(), "some/base", "# card")
    return tmp_path / "adapter"


def test_names_shapes_and_configuration_are_those_of_peft(folder):
    stored = load_file(folder / "adapter_model.safetensors")
    assert {name: tensor.shape for name, tensor in stored.items()} == {
        f"base_model.model.model.layers.{i}.{name}.weight": shape
        for i in range(2)
        for name, shape in SHAPES.items()
    }
    assert {tensor.dtype for tensor in stored.values()} == {np.dtype("float32")}
    # B A is the sum for a weight [out, in]: ours is A B, [in, out], with heads apart.
    factors = random_factors()
    stem = "base_model.model.model.layers.1.self_attn.{}_proj.lora_{}.weight"
    product = stored[stem.format("q", "B")] @ stored[stem.format("q", "A")]
    ours = np.tensordot(factors["q"]["a"][1], factors["q"]["b"][1], 1)
    np.testing.assert_allclose(product.T, ours.reshape(64, 64), 1e-5, 1e-5)
    product = stored[stem.format("o", "B")] @ stored[stem.format("o", "A")]
    ours = np.tensordot(factors["o"]["a"][1], factors["o"]["b"][1], 1)
    np.testing.assert_allclose(product.T, ours.reshape(64, 64), 1e-5, 1e-5)
    content = json.loads((folder / "adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base",
        "r": 3,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "o_proj", "down_proj"],
        "bias": "none",
        "use_rslora": False,
    }
    assert {key: content[key] for key in expected} == expected
    assert (folder / "README.md").read_text() == "# card"


@pytest.mark.parametrize("mesh", ["1x1", "2x4"])
def test_what_is_written_is_read_back_on_any_mesh(folder, mesh):
    settings = peft_folder.inspect(folder, TINY)
    assert settings == SETTINGS
    read = peft_folder.load(folder, TINY, settings, mesh_like(mesh))
    jax.tree.map(np.testing.assert_array_equal, read, random_factors())
    shapes = lora.abstract_factors(TINY, settings, mesh_like(mesh))
    assert jax.tree.map(lambda x: x.sharding, read) == jax.tree.map(lambda x: x.sharding, shapes)
    peft_folder.save(folder, TINY, settings, random_factors(mesh), "some/base")  # in its place
    again = peft_folder.load(folder, TINY, settings, mesh_like("1x1"))
    jax.tree.map(np.testing.assert_array_equal, again, read)


def change(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_targets_may_be_a_pattern_and_alpha_be_over_the_root_of_the_rank(folder):
    change(folder, target_modules=".*(q|o|down)_proj", use_rslora=True, lora_alpha=2)
    found = peft_folder.inspect(folder, TINY)
    assert found.targets == ("q", "o", "down")
    assert found.alpha / found.rank == pytest.approx(2 / 3**0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA'; expected 'LORA'"),
        ({"use_dora": True}, "use_dora is set, which is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is set"),
        ({"bias": "all"}, "bias is 'all'; expected 'none'"),
        ({"r": 0}, "r must be a positive whole number, found 0"),
        ({"lora_alpha": None}, "lora_alpha must be a positive number, found None"),
        ({"r": 4}, r"does not fit the model: .*lora_A.weight has shape \[3, 64\] \(expected \[4"),
    ],
)
def test_adapters_that_compute_something_else_are_refused(folder, settings, message):
    change(folder, **settings)
    with pytest.raises(UserError, match=message) as refused:
        peft_folder.inspect(folder, TINY)
    assert "\n" not in str(refused.value)


def test_tensors_that_are_missing_too_many_or_no_numbers_are_refused(folder):
    path = folder / "adapter_model.safetensors"
    stored = load_file(path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"

    def given(**tensors):
        save_file({**stored, **tensors}, path)
        return peft_folder.inspect(folder, TINY)

    with pytest.raises(UserError, match=r"unexpected base_model\.model\.lm_head\.lora_A"):
        given(**{"base_model.model.lm_head.lora_A.weight": np.ones((3, 64), np.float32)})
    settings = given(**{name: np.full((64, 3), np.nan, np.float32)})
    with pytest.raises(UserError, match=r"NaN or infinite: .*q_proj\.lora_B"):
        peft_folder.load(folder, TINY, settings, mesh_like("1x1"))
    del stored[name]
    with pytest.raises(UserError, match=r"does not fit the model: missing .*q_proj\.lora_B"):
        given()
    stored.clear()
    with pytest.raises(UserError, match="holds no adapter of this model, but something"):
        given(something=np.ones(3, np.float32))
    path.unlink()
    with pytest.raises(UserError, match="not a readable safetensors file"):
        peft_folder.inspect(folder, TINY)


def test_a_folder_of_something_else_is_not_replaced(folder):
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds notes\.txt, which is not part of an adapter"):
        peft_folder.save(folder, TINY, SETTINGS, random_factors(), "some/base")
    assert len(load_file(folder / "adapter_model.safetensors")) == 12
