"""The mesh: what `--mesh` means, and which axis of each weight is split over what."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, mesh_like, some_devices
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from alphamed_jax.errors import UserError
from alphamed_jax.model import mesh, network
from alphamed_jax.model.config import ModelConfig


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("8x1", (1, 8, 1)), ("4X2", (1, 4, 2)), ("2x8x8", (2, 8, 8)), ("auto", (1, 6, 1))],
)
def test_two_numbers_are_fsdp_and_tensor_and_a_third_in_front_is_replica(text, sizes):
    assert mesh.parse_mesh(text, 6) == sizes


NOT_A_MESH = st.text(max_size=8) | st.sampled_from(["8", "-1x8", "1x2x3x4", "8x", "4x2.0"])


@settings(max_examples=50)
@given(NOT_A_MESH.filter(lambda text: not re.fullmatch(r"auto|\d+x\d+(x\d+)?", text.lower())))
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(
        UserError, match=r"expected auto, FSDPxTENSOR \(8x8\) or REPLICAx"
    ) as caught:
        mesh.parse_mesh(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["0x8", "8x0", "0x0x0"])
def test_an_axis_of_no_devices_is_refused(text):
    with pytest.raises(UserError, match="expected auto"):
        mesh.parse_mesh(text)


def test_a_mesh_uses_all_devices_and_automatic_axes():
    some_devices(8)
    made = mesh.make_mesh("2x2x2")
    assert dict(made.shape) == {"replica": 2, "fsdp": 2, "tensor": 2}
    assert made.axis_names == mesh.AXES
    assert set(made.axis_types) == {jax.sharding.AxisType.Auto}
    assert dict(mesh.make_mesh("auto").shape) == {"replica": 1, "fsdp": 8, "tensor": 1}


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    some_devices(8)
    with pytest.raises(UserError, match=r"--mesh 4x4 needs 16 devices, but there are 8 \(cpu\)"):
        mesh.make_mesh("4x4")


def chips(slices, per_slice=8):
    """What JAX would give for slices of v5e:2x4, in an order of its own."""
    found = [
        SimpleNamespace(
            id=100 * s + i,
            platform="tpu",
            device_kind="TPU v5 lite",
            slice_index=s,
            process_index=2 * s + i // 4,
            coords=(i % 2, i // 2, 0),
            core_on_chip=0,
        )
        for i in range(per_slice)
        for s in range(slices)
    ]
    return found


@pytest.mark.parametrize("sizes", [(2, 4, 2), (4, 2, 2), (2, 8, 1)])
def test_slices_lie_along_the_replica_axis(sizes):
    arranged = mesh.device_grid(sizes, chips(2))
    assert arranged.shape == sizes
    assert len({device.id for device in arranged.flat}) == 16
    halves = np.split(arranged, 2)
    assert [{device.slice_index for device in half.flat} for half in halves] == [{0}, {1}]


@pytest.mark.parametrize("sizes", [(1, 16, 1), (1, 8, 2)])
def test_an_axis_within_a_slice_may_not_cross_the_network(sizes):
    text = "x".join(map(str, sizes))
    with pytest.raises(UserError, match=rf"--mesh {text}: these are 2 slices.*must be 2") as caught:
        mesh.device_grid(sizes, chips(2))
    assert f"as 2x{16 // 2 // sizes[2]}x{sizes[2]}" in str(caught.value)


def test_auto_makes_each_slice_a_replica():
    assert mesh.sizes_for("auto", chips(2)) == (2, 8, 1)
    assert mesh.sizes_for("auto", chips(1)) == (1, 8, 1)


def test_an_index_of_hosts_on_gpus_is_no_slice():
    hosts = chips(2)
    for device in hosts:
        device.platform = "gpu"
    assert mesh.slices_of(hosts) == 1


def _specs(config, text):
    made = mesh_like(text)
    return network.map_weights(
        lambda shape, axes: mesh.spec(axes, shape, made), network.weights(config)
    )


def test_each_weight_is_split_over_both_axes_of_the_mesh():
    config = ModelConfig(320, 64, 128, 2, 8, 4, 8, family="qwen2")
    assert _specs(config, "2x2x2") == {
        "embed": P("tensor", "fsdp"),
        "head": P("fsdp", "tensor"),
        "norm": P(None),
        "layers": {
            "attention_norm": P(None, None),
            "q": P(None, "fsdp", "tensor", None),
            "k": P(None, "fsdp", "tensor", None),
            "v": P(None, "fsdp", "tensor", None),
            "o": P(None, "tensor", None, "fsdp"),
            "q_bias": P(None, "tensor", None),
            "k_bias": P(None, "tensor", None),
            "v_bias": P(None, "tensor", None),
            "mlp_norm": P(None, None),
            "gate": P(None, "fsdp", "tensor"),
            "up": P(None, "fsdp", "tensor"),
            "down": P(None, "tensor", "fsdp"),
        },
    }


def test_weights_are_not_split_over_replicas():
    for spec in jax.tree.leaves(_specs(TINY, "2x2x2"), is_leaf=lambda x: isinstance(x, P)):
        assert "replica" not in spec


def test_rows_are_split_over_replicas_and_fsdp():
    made = mesh_like("2x2x2")
    assert mesh.spec(("batch", None), (8, 5), made) == P(("replica", "fsdp"), None)
    assert mesh.data_shards(made) == 4


def test_key_value_heads_fewer_than_the_tensor_axis_stay_whole():
    config = ModelConfig(320, 64, 128, 2, 8, 2, 8)
    specs = _specs(config, "2x4")["layers"]
    assert specs["q"] == P(None, "fsdp", "tensor", None)
    assert specs["k"] == specs["v"] == P(None, "fsdp", None, None)


def test_an_uneven_vocabulary_stays_whole():
    config = ModelConfig(321, 64, 128, 2, 8, 4, 8)
    assert _specs(config, "2x4")["embed"] == P(None, "fsdp")
    assert _specs(config, "2x4")["head"] == P("fsdp", None)


@pytest.mark.parametrize("text", ["1x1", "8x1", "1x8", "4x2", "2x2x2"])
def test_every_spec_divides_its_weight(text):
    made = mesh_like(text)

    def shard(shape, axes):
        return mesh.sharding(axes, shape, made).shard_shape(shape)  # raises if uneven

    network.map_weights(shard, network.weights(ModelConfig(321, 60, 36, 3, 6, 3, 4)))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "text"), [(8, 4, "1x4"), (8, 2, "1x4"), (9, 3, "8x1"), (8, 8, "1x8")]
)
def test_a_tensor_axis_that_fits_the_heads_is_accepted(heads, kv_heads, text):
    mesh.check_heads(heads, kv_heads, mesh_like(text))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "text", "fits"),
    [(9, 3, "4x2", "1, 3, 9"), (8, 4, "1x3", "1, 2, 4, 8"), (12, 4, "1x6", "1, 2, 4, 12")],
)
def test_a_tensor_axis_that_cuts_a_head_is_refused_with_those_that_do_not(
    heads, kv_heads, text, fits
):
    with pytest.raises(UserError, match=f"{kv_heads} key/value heads; sizes that do: {fits}"):
        mesh.check_heads(heads, kv_heads, mesh_like(text))


def test_the_mesh_of_arrays_is_found():
    made = mesh_like("4x2")
    split = mesh.device_put_global(np.ones((8, 4), np.float32), ("batch", None), made)
    assert mesh.mesh_of({"a": split}) == made
    assert mesh.mesh_of({"a": jnp.ones(3)}).size == 1
    assert mesh.mesh_of({}).size == 1


def test_placed_arrays_come_back_to_the_host():
    made = mesh_like("4x2")
    array = np.arange(32.0, dtype=np.float32).reshape(8, 4)
    split = mesh.device_put_global(array, ("batch", None), made)
    assert split.addressable_shards[0].data.shape == (2, 4)
    np.testing.assert_array_equal(mesh.host_get({"a": split}, made)["a"], array)


def test_a_constraint_without_a_mesh_does_nothing():
    x = jnp.ones((4, 4))
    assert mesh.constrain(x, "batch", None) is x


def test_a_constraint_pins_an_array_inside_jit():
    made = mesh_like("4x2")
    with jax.set_mesh(made):
        x = jax.jit(lambda x: mesh.constrain(x + 1, "batch", "mlp"))(jnp.ones((8, 4)))
    assert x.sharding.spec == P("fsdp", "tensor")
