"""cuDNN's attention: its function without cuDNN equals dense attention, and it lowers for CUDA."""

import functools

import jax
import jax.numpy as jnp
import pytest
from attention_cases import (
    Sizes,
    assert_same,
    is_float,
    outputs_and_gradients,
    plain_causal,
    plain_prefix,
    prefix_arrays,
    prompt_arrays,
)
from helpers import mesh_like
from jax._src.cudnn import fused_attention_stablehlo

from alphamed_jax.model import cudnn

prefix = functools.partial(cudnn.prefix_attention, emulated=True)
causal = functools.partial(cudnn.causal_attention, emulated=True)


@pytest.mark.parametrize(
    "sizes",
    [Sizes(packed=True), Sizes(), Sizes(heads=4, kv_heads=4), Sizes(heads=4, kv_heads=1)],
    ids=["packed", "one response a row", "MHA", "MQA"],
)
def test_packed_rows_equal_dense_attention_forward_and_gradient(sizes):
    arguments = prefix_arrays(sizes)
    expected = outputs_and_gradients(plain_prefix, arguments)
    assert_same(outputs_and_gradients(prefix, arguments), expected)


def test_prompts_equal_dense_attention_forward_and_gradient():
    arguments = prompt_arrays()
    expected = outputs_and_gradients(plain_causal, arguments)
    assert_same(outputs_and_gradients(causal, arguments), expected)


@pytest.mark.parametrize(("mesh", "kv_heads"), [("2x2x2", 4), ("1x8", 2)])
def test_on_a_mesh_it_is_the_same(mesh, kv_heads):
    arguments = prefix_arrays(Sizes(prompts=4, heads=8, kv_heads=kv_heads, packed=True))
    expected = outputs_and_gradients(plain_prefix, arguments)
    with jax.set_mesh(mesh_like(mesh)):
        found = outputs_and_gradients(prefix, arguments)
    assert_same(found, expected)


def test_forward_and_backward_lower_to_cudnn_calls_without_an_array_of_scores(monkeypatch):
    # Only a GPU's driver tells the version; the lowering itself needs neither.
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    sizes = Sizes(length=48, prompt_width=32, width=64, packed=True)
    half = {
        name: x.astype(jnp.bfloat16) if is_float(x) else x
        for name, x in prefix_arrays(sizes).items()
    }
    floats = {name: x for name, x in half.items() if is_float(x)}

    def total(floats):
        return cudnn.prefix_attention(**half | floats).astype(jnp.float32).sum()

    lowered = jax.jit(jax.grad(total)).trace(floats).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert text.count("@__cudnn$fmhaScaleBiasSoftmax(") == 1
    assert text.count("@__cudnn$fmhaScaleBiasSoftmaxBackward(") == 1
    heads, rows = sizes.heads, sizes.prompts * sizes.rows
    assert f"tensor<{rows}x1x48x80x" in text  # the mask, one for all heads
    assert f"tensor<{rows}x{heads}x48x80x" not in text


@pytest.mark.parametrize(("width", "taken"), [(64, True), (128, True), (60, False), (256, False)])
def test_heads_that_cudnn_takes(width, taken):
    assert cudnn.takes_heads_of(width) == taken
