"""Training's programs as compiled for TPUs that need not be there, against what a step must cost.

Skipped without libtpu: pip install -e '.[plan]'. Each compilation takes seconds: the default suite
takes Llama-3.1-8B's width with one or two layers, the slow ones all 32.
"""

import dataclasses
import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import plans
import pytest
from helpers import make_objective, needs_libtpu
from jax.sharding import NamedSharding, PartitionSpec

from alphamed_jax.compiled import topology
from alphamed_jax.config import LoraConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model.attention import Attention
from alphamed_jax.model.config import ModelConfig, RopeScaling
from alphamed_jax.model.mesh import make_mesh
from alphamed_jax.programs.compile_only import compile_only
from alphamed_jax.programs.estimate import IN_FLIGHT, offloaded
from alphamed_jax.programs.planned import PlannedStep, StepShape
from alphamed_jax.rl.logprobs import Compute


def llama_8b(layers=32):
    return ModelConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_layers=layers,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        rope_theta=5e5,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
        max_position_embeddings=131072,
        dtype="bfloat16",
    )


def kept(report):
    return {name: bar["kept"] for name, bar in report["bars"].items()}


@functools.cache
def decoding():
    # Caches too large to live in VMEM, as those of 32 layers are.
    shape = StepShape(prompts=16, response=4096, prompt_width=128)
    return compile_only("v5e:2x4", "1x8", llama_8b(2), shape, programs=[plans.named("decode")])


@needs_libtpu
def test_a_decode_step_reads_weights_and_caches_once_and_copies_neither():
    report = decoding()
    assert kept(report) == {"decode_bytes": True, "cache_copies": True}
    assert report["bars"]["decode_bytes"]["ratio"] > 0.8  # not more than VMEM holds is missing


@needs_libtpu
@pytest.mark.slow
def test_products_that_wait_at_the_host_leave_the_memory_of_the_device():
    # Given layers enough that what is kept of them is most of the memory,
    small = {"hidden_size": 1024, "intermediate_size": 4096, "num_heads": 8, "vocab_size": 2048}
    model = dataclasses.replace(llama_8b(8), **small)

    def memory(remat):
        shape = StepShape(prompts=16, response=1024, prompt_width=128, micro_batch=64)
        compute = Compute(jnp.dtype("bfloat16"), remat, attention=Attention("splash"))
        objective = make_objective(model)._replace(compute=compute)
        step = PlannedStep(model, topology.mesh_for("v5e:2x2", "2x2"), shape, objective)
        return plans.named("update").lower(step).compile().memory_analysis(), offloaded(step)

    (dots, _), (offload, told) = memory("dots"), memory("offload")
    # then what the plan says is sent is what the compiler lays out at the host,
    assert dots.host_temp_size_in_bytes == 0
    assert offload.host_temp_size_in_bytes == pytest.approx(told, rel=0.1)
    # and of these eight layers' products those of about four are missing on the device.
    saved = dots.peak_memory_in_bytes - offload.peak_memory_in_bytes
    assert saved == pytest.approx(told * (8 - IN_FLIGHT) / 8, rel=0.2)


@needs_libtpu
@pytest.mark.slow
def test_in_8_bits_a_decode_step_reads_8_bits_and_makes_nothing_wider_of_them():
    # Given caches too large to live in VMEM in 8 bits, too,
    shape = StepShape(
        prompts=16, response=8192, prompt_width=128, int8_weights=True, int8_cache=True
    )
    report = compile_only("v5e:2x4", "1x8", llama_8b(2), shape, programs=[plans.named("decode")])
    # then the products convert what they read: 16 bits of a weight or cache in memory, written
    # and read, would be a ratio of 1.3 or of 5.
    assert kept(report) == {"decode_bytes": True, "cache_copies": True}
    assert 0.8 < report["bars"]["decode_bytes"]["ratio"] < 1.1
    # Sums over devices are of hidden states, in 16 bits, as without.
    moved, rows = report["phases"]["decode"]["collectives"]["all-reduce"], 16 * 8
    assert moved["bf16"] == (2 * 2 + 1) * rows * 4096 * 2


@needs_libtpu
def test_only_sums_over_vocabulary_and_features_cross_between_devices_in_a_step():
    moved = decoding()["phases"]["decode"]["collectives"]
    rows = 16 * 8
    # Two all-reduces of a row's features per layer and one of the embeddings, in bfloat16,
    assert moved["all-reduce"]["bf16"] == (2 * 2 + 1) * rows * 4096 * 2
    # and of the logits about sqrt(V) numbers a row, not V.
    assert moved["all-gather"]["f32"] < 500 * rows * 4
    assert moved["all-reduce"]["f32"] < 500 * rows * 4


@needs_libtpu
def test_a_refill_touches_the_caches_of_the_refilled_slots_alone():
    # Given 32 or 64 slots a data shard, of which a refill fills eight,
    names = ("insert_prompts", "refill")
    found = [
        compile_only(
            "v5e:2x4",
            "2x4",
            llama_8b(2),
            StepShape(prompts=32, group=8, response=256, slots=slots),
            programs=list(map(plans.named, names)),
        )["phases"]
        for slots in (64, 128)
    ]
    few, many = ({name: phases[name]["traffic"] for name in names} for phases in found)
    # then twice as many slots with their caches move not a hundredth more,
    for name in names:
        assert many[name] < 1.01 * few[name]
    # and what moves is what is read and written of the eight, with one copy between.
    prompts = 8 * 2 * 2 * (8 // 4) * 384 * 128 * 2  # eight caches of two layers' keys and values
    assert many["insert_prompts"] < 4 * prompts


@needs_libtpu
@pytest.mark.slow
def test_an_update_of_adapters_sums_hidden_states_no_more_often_than_one_of_all_weights():
    shape = StepShape(prompts=8, response=512, micro_batch=64)
    named, adapters = [plans.named("update")], LoraConfig(rank=16)
    report = compile_only("v5e:2x4", "1x8", llama_8b(2), shape, programs=named, adapters=adapters)
    assert kept(report) == {"update_flops": True, "update_logit_rows": True}
    # Of each layer two sums forward, one again (not the last), and two backward; one of the
    # embeddings. What adapters send beside is as narrow as their rank, 16 of 4,096 features, and
    # what a chunk of logits gives back is a part of one.
    hidden = 8 * (384 + 8 * 512) * 4096 * 2
    moved = report["phases"]["update"]["collectives"]["all-reduce"]["bf16"]
    assert (5 * 2 + 1) * hidden < moved < 1.1 * (5 * 2 + 1) * hidden


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mesh", "prompts", "micro_batch"),
    [("v5e:8x8", "8x8", 64, 64), ("v6e:2x4", "1x8", 16, 16)],
)
def test_the_8b_model_keeps_every_bar_and_fits(name, mesh, prompts, micro_batch):
    shape = StepShape(prompts=prompts, micro_batch=micro_batch)
    both = [plans.named("decode"), plans.named("update")]
    report = compile_only(name, mesh, llama_8b(), shape, programs=both)
    assert all(kept(report).values()), report["bars"]
    assert report["fits"], report["memory"]
    # Weights are gathered in bfloat16, not in the float32 of the master weights.
    moved = report["phases"]["update"]["collectives"]
    if mesh == "8x8":
        gathered = moved["all-gather"]
        assert gathered.get("f32", 0) < 0.01 * gathered["bf16"]
    else:  # nothing is split over `fsdp`
        assert "all-gather" not in moved


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "mesh", "message"),
    [
        ("v5e:3x3", "auto", "libtpu refuses it"),
        ("v5e-8x8", "auto", "Did you mean 'v5e:8x8'"),
        ("v5e:2x4", "8x8", "needs 64 devices, but v5e:2x4 has 8"),
    ],
)
def test_a_topology_that_does_not_exist_or_fit_is_refused_in_one_line(name, mesh, message):
    with pytest.raises(UserError, match=message) as refused:
        topology.mesh_for(name, mesh)
    assert "\n" not in str(refused.value)


@needs_libtpu
def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="8 data shards"):
        compile_only("v5e:2x4", "8x1", llama_8b(1), StepShape(prompts=12))


def test_without_libtpu_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[plan\]'"):
        topology.mesh_for("v5e:8x8", "8x8")


def test_peak_figures_are_known_or_said_not_to_be():
    assert topology.chip("v6e:2x4").memory == 31.25 * 2**30
    with pytest.raises(UserError, match="no peak figures for 'v9'"):
        topology.chip("v9:2x2")


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("name", topology.KNOWN)
def test_every_topology_has_one_device_a_chip_and_compiles(name):
    mesh = topology.mesh_for(name, "auto")
    assert mesh.size == math.prod(map(int, name.split(":")[1].split("x")))
    rows = jax.ShapeDtypeStruct(
        (mesh.size, 128), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("fsdp"))
    )
    compiled = jax.jit(lambda x: x.sum()).lower(rows).compile()
    assert compiled.memory_analysis() is not None


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "mesh"), [("v5e:8x8", "8x8"), ("v5p:4x4x8", "16x8"), ("v6e:4x4", "2x8")]
)
def test_the_tensor_axis_runs_over_neighbours(name, mesh):
    # Chips of a tensor group lie in a block as compact as a line, or two lines side by side:
    groups = topology.mesh_for(name, mesh).devices[0]
    for group in groups:
        places = np.array([device.coords for device in group])
        sides = places.max(axis=0) - places.min(axis=0) + 1
        assert sides.prod() == len(group)  # no chip of another group lies within


@needs_libtpu
def test_the_mesh_of_a_plan_stands_as_that_of_training(monkeypatch):
    planned = topology.mesh_for("v5e:8x8", "8x8")
    devices = list(np.random.default_rng(0).permutation(planned.devices.reshape(-1)))
    monkeypatch.setattr(jax, "devices", lambda: sorted(devices, key=lambda d: d.id))
    assert make_mesh("8x8") == planned
