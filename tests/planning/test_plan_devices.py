"""Models and devices by name: shapes without weights, peak figures, meshes."""

import json

import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.model.network import count_parameters
from alphamed_jax.model.shapes import KNOWN
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.shape import model_shape


def test_known_shapes_are_those_of_the_models_they_name():
    millions = {
        name.split("/")[1]: round(count_parameters(shape) / 1e6) for name, shape in KNOWN.items()
    }
    assert millions["Llama-3.2-1B-Instruct"] == 1236
    assert millions["Llama-3.2-3B-Instruct"] == 3213
    assert millions["Llama-3.1-8B-Instruct"] == 8030
    assert millions["Llama-3.3-70B-Instruct"] == millions["Llama-3.1-70B"] == 70554


def test_a_folder_needs_no_more_than_its_config(tmp_path):
    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"model_type": "llama"}))
    assert model_shape(str(tmp_path)).num_layers == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meta-llama/Llama-3.1-9B", "Did you mean 'meta-llama/Llama-3.1-8B'"),
        ("./nowhere", "folder not found"),
    ],
)
def test_a_model_that_is_not_to_be_had_is_said_in_one_line(name, message):
    with pytest.raises(UserError, match=message) as refused:
        model_shape(name)
    assert "\n" not in str(refused.value)


def test_devices_without_a_compiler_have_an_abstract_mesh_and_a_data_sheet():
    devices = devices_for("h100:8x8", "8x8", PlanFlags())
    assert dict(devices.mesh.shape) == {"replica": 1, "fsdp": 8, "tensor": 8}
    assert (devices.platform, devices.compiled, devices.name) == ("gpu", False, "8x8")
    assert devices_for("cpu:8", "2x2x2", PlanFlags()).name == "2x2x2"


def test_flags_override_the_data_sheet():
    flags = PlanFlags(peak_flops=1e12, hbm_gb=3.0, hbm_gbps=5.0, ici_gbps=7.0)
    assert devices_for("a100:8", "auto", flags).chip == (1e12, 3 * 2**30, 5e9, 7e9)


@pytest.mark.parametrize(
    ("name", "mesh", "message"),
    [
        ("h10:8", "auto", "Did you mean 'h100'"),
        ("h100", "auto", "expected a number of devices, as h100:8"),
        ("h100:8", "8x8", "needs 64 devices, but h100:8 has 8"),
    ],
)
def test_devices_that_do_not_exist_or_fit_are_refused(name, mesh, message):
    with pytest.raises(UserError, match=message):
        devices_for(name, mesh, PlanFlags())
