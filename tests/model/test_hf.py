"""Reading Hugging Face weights: everything lands in its place, and bad folders are named."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from folders import CONFIG, QWEN2, QWEN3, random_tensors, shapes, write_folder
from helpers import mesh_like

from alphamed_jax import embedded
from alphamed_jax.errors import UserError
from alphamed_jax.model import hf
from alphamed_jax.model.finite import not_finite
from alphamed_jax.model.mesh import mesh_of

# --- loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, QWEN2, QWEN3], ids=["llama", "qwen2", "qwen3"])
def test_every_tensor_lands_in_its_place(tmp_path, config):
    stored = write_folder(tmp_path, config)
    read, params = hf.load(tmp_path)
    n, k, h = read.num_heads, read.num_kv_heads, read.head_dim
    assert (n, k, h) == (8, 4, 6)
    np.testing.assert_array_equal(params["embed"], stored["model.embed_tokens.weight"])
    np.testing.assert_array_equal(params["head"], stored["lm_head.weight"].T)
    np.testing.assert_array_equal(params["norm"], stored["model.norm.weight"])
    for i in range(read.num_layers):
        layer = {
            name.removeprefix(f"model.layers.{i}."): tensor
            for name, tensor in stored.items()
            if name.startswith(f"model.layers.{i}.")
        }
        expected = {
            "attention_norm": layer["input_layernorm.weight"],
            "q": layer["self_attn.q_proj.weight"].T.reshape(32, n, h),
            "k": layer["self_attn.k_proj.weight"].T.reshape(32, k, h),
            "v": layer["self_attn.v_proj.weight"].T.reshape(32, k, h),
            "o": layer["self_attn.o_proj.weight"].T.reshape(n, h, 32),
            "mlp_norm": layer["post_attention_layernorm.weight"],
            "gate": layer["mlp.gate_proj.weight"].T,
            "up": layer["mlp.up_proj.weight"].T,
            "down": layer["mlp.down_proj.weight"].T,
        }
        if config is QWEN2:
            expected |= {
                "q_bias": layer["self_attn.q_proj.bias"].reshape(n, h),
                "k_bias": layer["self_attn.k_proj.bias"].reshape(k, h),
                "v_bias": layer["self_attn.v_proj.bias"].reshape(k, h),
            }
        if config is QWEN3:
            expected |= {x: layer[f"self_attn.{x}.weight"] for x in ("q_norm", "k_norm")}
        assert expected.keys() == params["layers"].keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(params["layers"][name][i], tensor, err_msg=name)


@pytest.mark.parametrize("mesh", ["2x2x2", "1x8"])
def test_a_mesh_changes_where_the_values_are_and_not_what_they_are(tmp_path, mesh):
    write_folder(tmp_path)
    config, alone = hf.load(tmp_path)
    _, split = hf.load(tmp_path, mesh_like(mesh))
    expected = hf.abstract(config, mesh_like(mesh), jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, alone, split)
    assert mesh_of(split) == mesh_like(mesh)
    for leaf, want in zip(jax.tree.leaves(split), jax.tree.leaves(expected), strict=True):
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (want.shape, want.dtype, want.sharding)


def test_a_mesh_takes_a_share_of_the_large_weights(tmp_path):
    write_folder(tmp_path)
    _, params = hf.load(tmp_path, mesh_like("4x2"))
    for name in ("q", "k", "v", "o", "gate", "up", "down"):
        leaf = params["layers"][name]
        assert leaf.addressable_shards[0].data.size * 8 == leaf.size, name


def test_precision_is_as_stored_unless_asked(tmp_path):
    write_folder(tmp_path, CONFIG | {"torch_dtype": "bfloat16"})
    config, params = hf.load(tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    master_config, master = hf.load(tmp_path, dtype=jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(master)} == {jnp.dtype("float32")}
    assert config == master_config
    assert config.dtype == "bfloat16"
    for stored, wide in zip(jax.tree.leaves(params), jax.tree.leaves(master), strict=True):
        np.testing.assert_array_equal(np.asarray(stored).astype(np.float32), wide)


def test_stored_precision_wins_over_the_one_in_config_json(tmp_path):
    write_folder(tmp_path, CONFIG, random_tensors(CONFIG | {"torch_dtype": "float16"}))
    assert hf.load(tmp_path)[0].dtype == "float16"


def test_tensors_known_to_be_harmless_are_ignored(tmp_path):
    config = CONFIG | {"tie_word_embeddings": True}
    weights = random_tensors(config)
    extra = {
        "lm_head.weight": weights["model.embed_tokens.weight"].copy(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(3, np.float32),
    }
    write_folder(tmp_path, config, weights | extra)
    assert "head" not in hf.load(tmp_path)[1]


@pytest.mark.parametrize("rows", [47, 48])
@pytest.mark.parametrize("read", [hf.inspect, hf.load])
def test_a_head_of_its_own_in_a_tied_configuration_is_refused(tmp_path, read, rows):
    config = CONFIG | {"tie_word_embeddings": True}
    weights = random_tensors(config)
    head = weights["model.embed_tokens.weight"].copy()[:rows]
    head[46, 0] += 1
    write_folder(tmp_path, config, weights | {"lm_head.weight": head})
    with pytest.raises(UserError, match=r"ties the head .* with other values.*false"):
        read(tmp_path)


def test_the_host_holds_one_tensor_at_a_time(tmp_path):
    # Given 25 MB of weights whose largest tensor has 2 MB.
    config = CONFIG | {
        "hidden_size": 256,
        "intermediate_size": 2048,
        "num_hidden_layers": 4,
        "head_dim": 16,
    }
    write_folder(tmp_path, config)
    largest = 4 * max(int(np.prod(shape)) for shape in shapes(config).values())
    hf.load(tmp_path)  # compiles
    # When it is loaded, then Python never holds the stacked leaf, let alone the model.
    tracemalloc.start()
    hf.load(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * largest


def test_every_byte_is_read_once_however_the_mesh_repeats_it(tmp_path, monkeypatch):
    write_folder(tmp_path)
    reads = []

    class Counting:
        def __init__(self, view):
            self.view = view

        def __getitem__(self, index):
            reads.append(self.view[index].size)
            return self.view[index]

    read = hf._read
    monkeypatch.setattr(hf, "_read", lambda view, *rest: read(Counting(view), *rest))
    hf.load(tmp_path, mesh_like("2x2x2"))
    assert sum(reads) == sum(int(np.prod(shape)) for shape in shapes(CONFIG).values())
    # Weights are read in shards; norms, which every device keeps whole, are the exception.
    assert max(reads) <= 64 * 32 // 4


# --- finding the folder --------------------------------------------------------------------------


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert hf.locate(tmp_path) == tmp_path
    assert hf.locate(str(tmp_path)) == tmp_path


def test_a_hub_id_without_network_is_one_clear_line():
    with pytest.raises(UserError) as caught:
        hf.locate("nobody/no-such-model")
    message = str(caught.value)
    assert message.startswith("nobody/no-such-model: folder not found, and not available from")
    assert "\n" not in message


def test_pickle_files_are_never_downloaded(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}

    def download(name, allow_patterns, revision):
        asked[name] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hf.locate("meta-llama/Llama-3.1-8B-Instruct") == tmp_path
    patterns = asked["meta-llama/Llama-3.1-8B-Instruct"]
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(patterns)
    assert not any(pattern.endswith((".bin", ".pth", ".py", "*")) for pattern in patterns[:-3])


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "a/b/c", "~/missing"])
def test_a_path_is_not_looked_for_on_the_hub(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"folder not found; expected"):
        hf.locate(name)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(UserError, match=r"model\.safetensors: is a file"):
        hf.locate(tmp_path / "model.safetensors")


def test_the_quickstart_model_is_in_the_package():
    assert hf.locate("quickstart") == embedded.MODEL


# --- bad weights ---------------------------------------------------------------------------------


def _refused(folder, mesh=None):
    with pytest.raises(UserError) as caught:
        hf.load(folder, mesh)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message or mesh is not None
    return message


def test_a_missing_tensor_is_named(tmp_path):
    tensors = random_tensors(CONFIG)
    del tensors["model.layers.1.self_attn.o_proj.weight"]
    write_folder(tmp_path, tensors=tensors)
    assert "missing model.layers.1.self_attn.o_proj.weight (expected [32, 48])" in _refused(
        tmp_path
    )


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path):
    tensors = random_tensors(CONFIG) | {"model.norm.weight": np.zeros(31, np.float32)}
    write_folder(tmp_path, tensors=tensors)
    assert "model.norm.weight has shape [31] (expected [32])" in _refused(tmp_path)


def test_an_unexpected_tensor_is_named(tmp_path):
    extra = {"model.layers.2.mlp.up_proj.weight": np.zeros((64, 32), np.float32)}
    write_folder(tmp_path, tensors=random_tensors(CONFIG) | extra)
    assert "unexpected model.layers.2.mlp.up_proj.weight [64, 32]" in _refused(tmp_path)


def test_of_many_faults_a_few_are_shown_and_the_rest_counted(tmp_path):
    write_folder(tmp_path, tensors=random_tensors(CONFIG | {"num_hidden_layers": 1}))
    message = _refused(tmp_path)
    assert message.count("missing model.layers.1.") == 5
    assert message.endswith("; and 4 more.")


def test_quantised_tensors_are_refused(tmp_path):
    tensors = random_tensors(CONFIG) | {"model.norm.weight": np.zeros(32, np.int8)}
    write_folder(tmp_path, tensors=tensors)
    assert "model.norm.weight is stored as I8 (expected F32, BF16, F16)" in _refused(tmp_path)


def test_pickle_only_weights_are_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    message = _refused(tmp_path)
    assert "no model.safetensors" in message
    assert "Pickle files (pytorch_model.bin) are never read" in message
    assert "convert them to safetensors" in message


def test_a_file_missing_from_the_shards_is_named(tmp_path):
    write_folder(tmp_path, files=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    message = _refused(tmp_path)
    assert "names files that are not there: model-00002-of-00003.safetensors" in message


@pytest.mark.parametrize("content", ["{", "[]", '{"metadata": {}}'])
def test_a_broken_index_is_named(tmp_path, content):
    write_folder(tmp_path, files=3)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json: " in _refused(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    write_folder(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "model.safetensors: not a readable safetensors file" in _refused(tmp_path)


def test_heads_that_the_mesh_would_cut_are_refused_before_anything_is_read(tmp_path):
    write_folder(tmp_path, CONFIG | {"num_attention_heads": 6, "num_key_value_heads": 3})
    message = _refused(tmp_path, mesh_like("2x4"))
    assert "the tensor axis (4) does not fit 6 query and 3 key/value heads" in message


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", [None, "2x4"])
def test_weights_that_are_no_numbers_are_named(tmp_path, mesh):
    # Given a NaN in one layer's matrix and an infinity in the last row of the table,
    broken = random_tensors(CONFIG)
    broken["model.layers.1.self_attn.k_proj.weight"][3, 2] = np.nan
    broken["model.embed_tokens.weight"][-1, -1] = -np.inf
    write_folder(tmp_path, tensors=broken)
    # when they are read, then both are told, and no other.
    with pytest.raises(UserError, match="NaN or infinite") as told:
        hf.load(tmp_path, mesh and mesh_like(mesh))
    assert "layers.1.self_attn.k_proj" in str(told.value)
    assert "embed_tokens" in str(told.value)
    assert "layers.0" not in str(told.value)


def test_weights_that_overflow_where_they_are_used_are_told(tmp_path):
    large = random_tensors(CONFIG)
    large["model.norm.weight"][0] = 3.4e38  # finite in float32, infinite in bfloat16
    write_folder(tmp_path, tensors=large)
    hf.load(tmp_path)
    with pytest.raises(UserError, match=r"infinite as bfloat16: model\.norm\.weight"):
        hf.load(tmp_path, dtype=jnp.bfloat16)


def test_leaves_of_a_state_that_are_no_numbers_are_named():
    state = {"a": {"b": jnp.array([1.0, jnp.nan]), "c": jnp.ones(3)}, "count": jnp.int32(1)}
    assert not_finite(state) == ["a/b"]
    assert not_finite(state | {"a": {}}) == []
