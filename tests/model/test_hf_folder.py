"""config.json: everything about the network is read from it, in both spellings, or refused."""

import json

import pytest
from folders import CONFIG, QWEN2, QWEN3
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.errors import UserError
from alphamed_jax.model import hf
from alphamed_jax.model.config import ModelConfig, RopeScaling
from alphamed_jax.model.families import FAMILIES
from alphamed_jax.model.hf_folder import to_json

LLAMA3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture
def read(tmp_path):
    """Write a config.json and read it."""

    def read(content):
        (tmp_path / "config.json").write_text(json.dumps(content))
        return hf.read_config(tmp_path)

    return read


def _without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


def test_every_size_is_read(read):
    assert read(CONFIG) == ModelConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=8,
        num_kv_heads=4,
        head_dim=6,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        max_position_embeddings=256,
        dtype="float32",
    )


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("rms_norm_eps", 1e-3, "rms_norm_eps"),
        ("rope_theta", 123.0, "rope_theta"),
        ("rope_theta", 500000, "rope_theta"),
        ("head_dim", 10, "head_dim"),
        ("tie_word_embeddings", True, "tie_embeddings"),
        ("num_key_value_heads", 2, "num_kv_heads"),
        ("torch_dtype", "bfloat16", "dtype"),
    ],
)
def test_no_setting_is_hardcoded(read, key, value, field):
    assert getattr(read(CONFIG | {key: value}), field) == value
    assert getattr(read(CONFIG), field) != value


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("num_key_value_heads", "num_kv_heads", 8),
        ("head_dim", "head_dim", 4),
        ("rms_norm_eps", "rms_norm_eps", 1e-6),
        ("rope_theta", "rope_theta", 10000.0),
        ("tie_word_embeddings", "tie_embeddings", False),
        ("max_position_embeddings", "max_position_embeddings", 2048),
        ("torch_dtype", "dtype", "float32"),
        ("hidden_act", "num_layers", 2),
    ],
)
def test_what_a_file_leaves_out_is_filled_in_as_transformers_does(read, key, field, value):
    assert getattr(read(_without(CONFIG, key)), field) == value
    assert getattr(read(CONFIG | {key: None} if key != "hidden_act" else CONFIG), field) == value


@pytest.mark.parametrize("config", [CONFIG, QWEN2, QWEN3], ids=["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("name", ["rope_type", "type"])
def test_both_spellings_of_llama3_scaling_read_alike(read, config, name):
    old = config | {"rope_theta": 5e5, "rope_scaling": LLAMA3 | {name: "llama3"}}
    new = _without(config, "rope_theta", "torch_dtype") | {
        "rope_parameters": LLAMA3 | {name: "llama3", "rope_theta": 5e5},
        "dtype": "float32",
    }
    assert read(old) == read(new)
    assert read(old).rope_theta == 5e5
    assert read(old).rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)


@pytest.mark.parametrize(
    "block",
    [None, {}, {"rope_type": "default"}, {"type": "default"}, {"rope_type": None}],
    ids=str,
)
def test_no_scaling_reads_alike_in_both_spellings(read, block):
    old = read(CONFIG | {"rope_theta": 777.0, "rope_scaling": block})
    new = CONFIG | {"rope_theta": None, "rope_parameters": (block or {}) | {"rope_theta": 777.0}}
    assert old == read(new)
    assert old.rope_scaling is None


@pytest.mark.parametrize("config", [CONFIG, QWEN2, QWEN3], ids=["llama", "qwen2", "qwen3"])
def test_the_family_is_the_one_that_the_file_names(read, config):
    assert read(config).family == config["model_type"]
    assert read(_without(config, "architectures")).family == config["model_type"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral' is not supported; expected llama,? "),
        ({"model_type": None}, "model_type None is not supported"),
        ({"model_type": "qwen3_moe"}, "model_type 'qwen3_moe' is not supported; expected llama,? "),
        ({"model_type": ["llama"]}, r"model_type \['llama'\] is not supported; expected llama"),
        ({"model_type": {"name": "llama"}}, "model_type .* is not supported; expected llama"),
        ({"architectures": 5}, "architectures must be a list of names, found 5"),
        (
            {"architectures": "LlamaForCausalLM"},
            "architectures must be a list of names, found 'LlamaForCausalLM'",
        ),
        ({"architectures": [["Llama"]]}, r"architectures must be a list of names, found \[\["),
        ({"layer_types": 2}, "layer_types must be a list of names, found 2"),
        ({"layer_types": "full_attention"}, "layer_types must be a list of names, found 'full"),
        ({"layer_types": ["full_attention", None]}, "layer_types must be a list of names, found"),
        ({"layer_types": [["full_attention"]]}, "layer_types must be a list of names, found"),
        (
            {"architectures": ["Qwen2ForCausalLM"]},
            "architectures .*Qwen2.*LlamaForCausalLM",
        ),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types sliding_attention"),
        ({"attention_bias": True}, "attention_bias is set, which is not supported"),
        ({"mlp_bias": True}, "mlp_bias is set, which is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set, .* unquantised model"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; expected 'silu'"),
        ({"hidden_size": 0}, "hidden_size must be a positive whole number, found 0"),
        ({"hidden_size": None}, "hidden_size must be a positive whole number, found None"),
        ({"vocab_size": "48"}, "vocab_size must be a positive whole number, found '48'"),
        ({"rms_norm_eps": -1}, "rms_norm_eps must be a positive number, found -1"),
        ({"rope_theta": "x"}, "rope_theta must be a positive number, found 'x'"),
        ({"num_key_value_heads": 3}, r"num_attention_heads \(8\) is not a multiple of .* \(3\)"),
        ({"head_dim": 7}, r"head_dim \(7\) must be even"),
        ({"head_dim": None, "hidden_size": 36}, r"hidden_size \(36\) is not a multiple of"),
        ({"torch_dtype": "int8"}, "dtype 'int8' is not supported; expected float32, bfloat16"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ({"rope_scaling": "llama3"}, "rope_scaling must be an object, found 'llama3'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_implemented_is_refused_by_name(read, tmp_path, change, message):
    with pytest.raises(UserError, match=rf"config\.json: {message}") as caught:
        read(CONFIG | change)
    assert str(caught.value).startswith(str(tmp_path / "config.json"))
    assert "\n" not in str(caught.value)


def test_sliding_window_of_qwen2_is_refused_only_when_used(read):
    assert read(QWEN2 | {"use_sliding_window": False, "sliding_window": 4096})
    with pytest.raises(UserError, match="use_sliding_window is set, which is not supported"):
        read(QWEN2 | {"use_sliding_window": True})


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "longrope", "proportional"])
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_other_scalings_are_refused_by_name(read, key, kind):
    with pytest.raises(UserError, match=f"{key} of type '{kind}' is not supported; .* 'llama3'"):
        read(CONFIG | {key: {"rope_type": kind, "factor": 2.0}})


@pytest.mark.parametrize("key", LLAMA3)
def test_llama3_scaling_needs_all_of_its_numbers(read, key):
    block = _without(LLAMA3, key) | {"rope_type": "llama3"}
    with pytest.raises(UserError, match=f"rope_scaling: {key} must be a positive"):
        read(CONFIG | {"rope_scaling": block})


def test_llama3_scaling_needs_two_different_borders(read):
    block = LLAMA3 | {"rope_type": "llama3", "high_freq_factor": 1.0}
    with pytest.raises(UserError, match="high_freq_factor must be greater"):
        read(CONFIG | {"rope_scaling": block})


def test_a_folder_without_config_json_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: not found. Expected a Hugging Face model"):
        hf.read_config(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_broken_config_json_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: (not readable as JSON|expected a JSON)"):
        hf.read_config(tmp_path)


@st.composite
def configs(draw):
    size = st.integers(1, 300)
    kv_heads = draw(size)
    number = st.floats(1e-9, 1e9)
    scaling = st.builds(
        RopeScaling,
        factor=number,
        low_freq_factor=st.floats(0.1, 1.0),
        high_freq_factor=st.floats(1.5, 9.0),
        original_max_position_embeddings=size,
    )
    return ModelConfig(
        vocab_size=draw(size),
        hidden_size=draw(size),
        intermediate_size=draw(size),
        num_layers=draw(size),
        num_heads=kv_heads * draw(st.integers(1, 8)),
        num_kv_heads=kv_heads,
        head_dim=2 * draw(size),
        rms_norm_eps=draw(number),
        rope_theta=draw(number),
        rope_scaling=draw(st.none() | scaling),
        tie_embeddings=draw(st.booleans()),
        family=draw(st.sampled_from([*FAMILIES])),
        max_position_embeddings=draw(size),
        dtype=draw(st.sampled_from(["float32", "bfloat16", "float16"])),
    )


@given(configs())
def test_what_is_written_is_read_back(tmp_path_factory, config):
    folder = tmp_path_factory.getbasetemp()
    (folder / "config.json").write_text(json.dumps(to_json(config, config.dtype, {})))
    assert hf.read_config(folder) == config


def test_qwen3_heads_are_as_wide_as_the_file_says_or_128(read):
    assert read(QWEN3).head_dim == 6
    assert read(_without(QWEN3, "head_dim")).head_dim == 128


@pytest.mark.parametrize("key", ["use_sliding_window", "attention_bias"])
def test_what_qwen3_may_have_and_we_do_not_compute_is_refused_by_name(read, key):
    assert read(QWEN3 | {key: False, "sliding_window": 4096}).family == "qwen3"
    with pytest.raises(UserError, match=f"{key} is set, which is not supported"):
        read(QWEN3 | {key: True})


def test_an_unknown_family_is_refused_with_the_known_ones(read):
    with pytest.raises(UserError, match=r"'qwen3_moe' .* expected llama, qwen2 or qwen3"):
        read(QWEN3 | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]})


def test_an_export_names_its_own_architecture(read):
    for config in (CONFIG, QWEN2, QWEN3):
        written = to_json(read(config), "float32", {})
        assert written["architectures"] == config["architectures"]
        assert written["model_type"] == config["model_type"]
