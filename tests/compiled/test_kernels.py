"""What splash attention's kernels cost, and that no array of scores is left where they run."""

import re

import jax
import jax.numpy as jnp
import plans
import pytest
from helpers import needs_libtpu

from alphamed_jax.compiled import costs, hlo, topology
from alphamed_jax.config import LossConfig, OptimizerConfig
from alphamed_jax.model import splash
from alphamed_jax.model.attention import Attention, prefix_attend
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import sharding
from alphamed_jax.programs.planned import PlannedStep, StepShape
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.update import Objective


def call_text(kernel, operands):
    """HLO of a program that calls a kernel: 8 query and 2 key/value heads of width 128."""
    lines = [f"  %p{i} = {shape} parameter({i})" for i, shape in enumerate(operands)]
    names = ", ".join(f"%p{i}" for i in range(len(operands)))
    return "\n".join(
        [
            "HloModule m",
            "ENTRY %main (p: s8[1,2,2]) -> bf16[4,8,1024,128] {",
            *lines,
            f"  ROOT %{kernel}.1 = bf16[4,8,1024,128]{{3,2,1,0}} custom-call({names}), "
            'custom_call_target="tpu_custom_call"',
            "}",
        ]
    )


OWN = ["s8[1,2,2]"] * 2 + ["bf16[4,8,1024,128]"] + ["bf16[4,2,1024,128]"] * 2
PROMPT = ["s8[1,2,1]"] * 2 + ["bf16[4,8,1024,128]"] + ["bf16[2,384,128]"] * 2
IDS = ["s32[1024,128]", "s32[8,1024]"]
PLACES = ["s32[1024,128]"]
ROWS = ["f32[4,8,8,1024]", "bf16[4,8,1024,128]", "f32[4,8,8,1024]"]


@pytest.mark.parametrize(
    ("kernel", "operands", "products", "pairs"),
    [
        # Causal, two blocks of 512 each way: one of the four is passed over.
        ("splash_mha_fwd_residuals", OWN + PLACES, 2, 3 * 512**2),
        ("splash_mha_fwd_segmented_residuals", OWN + IDS + PLACES, 2, 3 * 512**2),
        ("splash_mha_fwd_segmented_residuals", PROMPT + IDS, 2, 1024 * 384),
        ("splash_mha_dkv_segmented_no_residuals", OWN + IDS + ROWS + PLACES, 5, 3 * 512**2),
        ("splash_mha_dkv_segmented_no_residuals", PROMPT + IDS + ROWS, 5, 1024 * 384),
    ],
)
def test_flops_are_two_a_product_feature_and_pair_of_each_computed_block(
    kernel, operands, products, pairs
):
    text = call_text(kernel, operands)
    assert costs.matmul_flops(text) == products * 2 * 4 * 8 * 128 * pairs


def test_a_block_of_keys_is_read_for_each_block_of_queries_and_head_that_sees_it():
    text = call_text("splash_mha_fwd_residuals", OWN + PLACES)
    program = hlo.parse(text)
    queries, keys = 4 * 8 * 1024 * 128 * 2, 4 * 2 * 1024 * 128 * 2
    small = 2 * 4 + 1024 * 128 * 4
    # Four query heads to a key head, three blocks computed where two blocks hold the keys.
    read = queries + 2 * keys * 4 * 3 / 2 + small
    assert costs.computation_traffic(program, program.entry) == costs.Traffic(int(read), queries)


def test_keys_of_a_prompt_in_one_block_are_read_once_for_each_of_its_rows():
    text = call_text("splash_mha_fwd_segmented_residuals", PROMPT + IDS)
    program = hlo.parse(text)
    queries, keys = 4 * 8 * 1024 * 128 * 2, 2 * 384 * 128 * 2
    small = 2 * 2 + 1024 * 128 * 4 + 8 * 1024 * 4
    expected = costs.Traffic(queries + 4 * 2 * keys + small, queries)
    assert costs.computation_traffic(program, program.entry) == expected


def test_backward_queries_pass_by_the_keys():
    operands = OWN + IDS + ROWS + PLACES
    text = call_text("splash_mha_dkv_segmented_no_residuals", operands)
    program = hlo.parse(text)
    queries, keys = 4 * 8 * 1024 * 128 * 2, 4 * 2 * 1024 * 128 * 2
    rows = 4 * 8 * 8 * 1024 * 4
    small = 2 * 4 + 2 * 1024 * 128 * 4 + 8 * 1024 * 4
    read = (2 * queries + 2 * rows) * 3 / 2 + 2 * keys + small
    assert costs.computation_traffic(program, program.entry).read == int(read)


def test_other_custom_calls_are_none():
    text = call_text("sort", OWN)
    assert costs.matmul_flops(text) == 0


@pytest.mark.parametrize("width", [64, 128])
def test_forward_and_backward_kernels_lower_for_tpus(width):
    shape = jax.ShapeDtypeStruct((1, 640, 8, width), jnp.bfloat16)
    keys = jax.ShapeDtypeStruct((1, 640, 2, width), jnp.bfloat16)

    def total(q, k, v):
        return splash.causal_attention(q, k, v).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    text = gradient.trace(shape, keys, keys).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call(") == 2
    # Padded to two blocks of 384; no array of scores, nor one of a mask.
    assert f"x768x{width}xbf16" in text
    assert not re.search("640x640x|768x768x", text)


def scores(text):
    """Arrays whose last dimensions are queries and keys of a row of 1024 or a prompt of 384."""
    return re.findall(r"\b(?:f32|bf16)\[(?:\d+,)*(?:1024,1024|1024,384|384,1024|384,384)\]", text)


def compiled_gradient(kind, mesh):
    """HLO of attention's gradient over prompts of 384 tokens and rows of 1024, narrow heads."""
    prompts, rows, length, prompt, heads, width = 4, 2, 1024, 384, 8, 64

    def array(shape, dtype, *axes):
        named = "batch", *axes, *(None,) * (len(shape) - 1 - len(axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(named, shape, mesh))

    tokens = prompts, prompt + rows * length
    q, k = (
        array((*tokens, count, width), jnp.bfloat16, None, axis)
        for count, axis in ((heads, "heads"), (heads // 2, "kv_heads"))
    )
    lengths = array((prompts,), jnp.int32)
    segment_ids = array((prompts, rows, length), jnp.int32)

    def total(q, k, v, lengths, segment_ids):
        shape = segment_ids.shape
        attend = prefix_attend(Attention(kind), lengths, prompt, shape, segment_ids)
        return attend(q, k, v).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    with jax.set_mesh(mesh):
        return gradient.lower(q, k, k, lengths, segment_ids).compile().as_text()


@needs_libtpu
@pytest.mark.slow
def test_where_dense_attention_leaves_arrays_of_scores_splash_leaves_none():
    mesh = topology.mesh_for("v5e:2x4", "2x4")
    texts = {kind: compiled_gradient(kind, mesh) for kind in ("dense", "splash")}
    assert scores(texts["dense"])
    assert not scores(texts["splash"])
    # Of a device's two rows and two heads: scores and output, then five products backward; of the
    # four blocks of a row with itself three.
    pairs = 384**2 + 2 * (1024 * 384 + 3 * 512**2)
    assert costs.matmul_flops(texts["splash"]) == (2 + 5) * 2 * 2 * 2 * 64 * pairs


@needs_libtpu
@pytest.mark.slow
def test_an_update_runs_the_kernels_twice_forward_and_once_backward_in_a_layer():
    # Sizes in which no weight and no activation looks like scores.
    model = ModelConfig(
        vocab_size=2000,
        hidden_size=512,
        intermediate_size=1280,
        num_layers=2,
        num_heads=8,
        num_kv_heads=4,
        head_dim=64,
    )
    shape = StepShape(prompts=2, group=2, response=1024, micro_batch=2)
    compute = Compute(jnp.dtype("bfloat16"), "layer", attention=Attention("splash"))
    objective = Objective(model, Sampling(), compute, LossConfig(), OptimizerConfig(), 0)
    mesh = topology.mesh_for("v5e:2x4", "2x4")
    step = PlannedStep(model, mesh, shape, objective)
    text = plans.named("update").lower(step).compile().as_text()
    assert not scores(text)
    # A prompt's, those of its rows, and those of rows among themselves; remat runs them again.
    program = hlo.parse(text)
    calls = [i for c in program.computations.values() for i in c.values()]
    kernels = [i.name for i in calls if i.opcode == "custom-call"]
    assert sum(name.startswith("splash_mha_fwd") for name in kernels) == 2 * 3
    assert sum(name.startswith("splash_mha_dkv") for name in kernels) == 3
