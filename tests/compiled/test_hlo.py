"""The reader of compiled programs: it counts what is known to be there, and sees what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bytes_per_step

from alphamed_jax.compiled import costs, hlo, report

F32 = jnp.float32


def compiled(function, *shapes, **options):
    arguments = [jax.ShapeDtypeStruct(shape, F32) for shape in shapes]
    return jax.jit(function, **options).lower(*arguments).compile().as_text()


# Products


def test_products_in_loops_count_as_often_as_the_loop_turns():
    def stacked(x, weights):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0]

    text = compiled(stacked, (8, 64), (5, 64, 64))
    assert costs.matmul_flops(text) == 5 * 2 * 8 * 64 * 64


def test_a_loop_of_unknown_length_counts_as_often_as_it_is_told_to():
    def repeated(x, w, n):
        return jax.lax.fori_loop(0, n.astype(jnp.int32), lambda i, x: x @ w, x)

    text = compiled(repeated, (64, 64), (64, 64), ())
    once = 2 * 64**3
    assert [costs.matmul_flops(text, n) for n in (1, 7)] == [once, 7 * once]


def test_recomputation_is_seen():
    # Given a stack whose backward pass needs each layer's activations,
    def loss(body):
        return lambda x, w: jax.lax.scan(body, x, w)[0].sum()

    def layer(x, w):
        return jnp.tanh(x @ w), None

    kept, again = (
        costs.matmul_flops(compiled(jax.grad(loss(body), (0, 1)), (64, 64), (4, 64, 64)))
        for body in (layer, jax.checkpoint(layer, prevent_cse=False))
    )
    # then keeping them costs three products a layer, and computing them again costs four.
    assert (kept, again) == (3 * 4 * 2 * 64**3, 4 * 4 * 2 * 64**3)


TPU_PRODUCTS = """
HloModule jit_f, is_scheduled=true

ENTRY %main (a: f32[8,8,4,128], b: f32[8,8,256,128]) -> f32[8,8,256,4] {
  %a = f32[8,8,4,128]{3,2,1,0:T(8,128)} parameter(0)
  %b = f32[8,8,256,128]{3,2,1,0:T(8,128)} parameter(1)
  ROOT %c = f32[8,8,256,4]{2,3,1,0:T(4,128)} convolution(%b, %a), WINDOW, dim_labels=01bf_01oi->01bf
}
"""


def test_batched_products_as_tpus_write_them_count_only_what_is_multiplied():
    # 64 products of [256, 128] with [128, 4], as a convolution over a dilated input.
    window = "window={size=8x8 stride=7x7 lhs_dilate=8x8}"
    text = TPU_PRODUCTS.replace("WINDOW", window)
    assert costs.matmul_flops(text) == 64 * 2 * 256 * 128 * 4


# Shapes


@pytest.mark.parametrize(
    ("text", "size", "space"),
    [
        ("f32[3,5]{1,0}", 60, 0),
        ("bf16[8,1,384,128]{3,2,0,1:T(8,128)(2,1)S(1)}", 2 * 8 * 384 * 128, 1),
        # Of [64, 4] with 64 minor, a tile of 4 x 128 holds all: half of it is padding.
        ("f32[64,4]{0,1:T(4,128)}", 4 * 128 * 4, 0),
        ("f32[4,100]{1,0:T(8,128)}", 8 * 128 * 4, 0),
        ("s32[]{:T(128)}", 4, 0),
    ],
)
def test_sizes_hold_the_padding_of_tiles_and_know_their_memory(text, size, space):
    (shape,) = hlo.shapes_of(text)
    assert (shape.size, shape.space) == (size, space)


# Traffic

STEP = """
HloModule jit_step, is_scheduled=true

%read (p: bf16[64,1024,128], i: s32[]) -> bf16[64,1,128] {
  %p = bf16[64,1024,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %i = s32[]{:T(128)} parameter(1)
  ROOT %s = bf16[64,1,128]{2,1,0:T(1,128)(2,1)S(1)} dynamic-slice(%p, %i, %i, %i), sizes={64,1,128}
}

%whole (p.1: bf16[64,1024,128]) -> f32[64] {
  %p.1 = bf16[64,1024,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %r = f32[64]{0:T(128)S(1)} custom-call(%p.1), custom_call_target="sum"
}

%body (state: (bf16[64,1024,128], s32[])) -> (bf16[64,1024,128], s32[]) {
  %state = (bf16[64,1024,128]{2,1,0:T(8,128)(2,1)}, s32[]{:T(128)}) parameter(0)
  %cache = bf16[64,1024,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state), index=0
  %at = s32[]{:T(128)} get-tuple-element(%state), index=1
LINES
}

%condition (state.1: (bf16[64,1024,128], s32[])) -> pred[] {
  %state.1 = (bf16[64,1024,128]{2,1,0:T(8,128)(2,1)}, s32[]{:T(128)}) parameter(0)
  %at.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=1
  %end = s32[]{:T(128)} constant(9)
  ROOT %go = pred[]{:T(512)} compare(%at.1, %end), direction=LT
}

ENTRY %main (c: bf16[64,1024,128], n: s32[]) -> (bf16[64,1024,128], s32[]) {
  %c = bf16[64,1024,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %n = s32[]{:T(128)} parameter(1)
  %t = (bf16[64,1024,128]{2,1,0:T(8,128)(2,1)}, s32[]{:T(128)}) tuple(%c, %n)
  ROOT %l = (bf16[64,1024,128], s32[]) while(%t), condition=%condition, body=%body
}
"""
HBM, VMEM = (f"bf16[64,1024,128]{{2,1,0:T(8,128)(2,1){space}}}" for space in ("", "S(1)"))
CACHE = 2 * 64 * 1024 * 128
TO_VMEM = f"  %start = ({VMEM}, {HBM}, u32[]{{:S(2)}}) copy-start(%cache)\n"
TO_VMEM += f"  %held = {VMEM} copy-done(%start)\n"


def step(lines):
    assert "LINES" in STEP
    return STEP.replace("LINES", lines)


def test_a_slice_of_the_cache_costs_a_slice():
    line = "  ROOT %x = bf16[64,1,128]{2,1,0:T(1,128)(2,1)S(1)} fusion(%cache, %at), calls=%read"
    assert bytes_per_step(step(line)) == 2 * 64 * 128 + 4  # and the place


def large_writes(text, size):
    """Instructions of the step that write so many bytes or more."""
    program = hlo.parse(text)
    written = costs.writes(program, costs.step_body(program))
    return [name for name, there in written.items() if there >= size]


def test_a_prefetch_into_vmem_and_its_use_count_once():
    line = TO_VMEM + "  ROOT %x = f32[64]{0:T(128)S(1)} fusion(%held), calls=%whole"
    assert bytes_per_step(step(line)) == CACHE
    assert not large_writes(step(line), CACHE)
    # And a use of both counts twice.
    both = TO_VMEM + "  ROOT %x = f32[64]{0:T(128)S(1)} fusion(%cache), calls=%whole"
    assert bytes_per_step(step(both)) == 2 * CACHE


def test_a_cache_brought_back_from_vmem_is_seen():
    back = f"  ROOT %back = ({HBM}, {VMEM}, u32[]{{:S(2)}}) copy-start(%held)"
    text = step(TO_VMEM + back)
    assert bytes_per_step(text) == 2 * CACHE
    assert large_writes(text, CACHE) == ["back (copy-start)"]


def test_a_loop_of_known_length_multiplies_its_traffic():
    lines = """\
  %x = f32[64]{0:T(128)S(1)} fusion(%cache), calls=%whole
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)S(6)} add(%at, %one)
  ROOT %out = (bf16[64,1024,128]{2,1,0:T(8,128)(2,1)}, s32[]) tuple(%cache, %next)"""
    program = hlo.parse(
        step(lines).replace("%n = s32[]{:T(128)} parameter(1)", "%n = s32[] constant(0)")
    )
    assert costs.computation_traffic(program, program.entry).read // CACHE == 9


def test_an_update_in_place_costs_what_it_writes_and_a_copy_costs_all():
    def write(cache, x):
        def turn(state):
            i, cache = state
            cache = jax.lax.dynamic_update_slice(cache, x * i.astype(F32), (0, i, 0))
            return i + 1, cache

        return jax.lax.while_loop(lambda s: s[0] < 1000, turn, (jnp.int32(0), cache))

    def shift(cache, x):
        def turn(state):
            i, cache = state
            cache = jnp.roll(cache, 1, axis=1).at[:, 0].set(x[:, 0] * i.astype(F32))
            return i + 1, cache

        return jax.lax.while_loop(lambda s: s[0] < 1000, turn, (jnp.int32(0), cache))

    shapes = (4, 1000, 64), (4, 1, 64)
    size = 4 * int(np.prod(shapes[0]))
    in_place = compiled(write, *shapes, donate_argnums=0)
    assert bytes_per_step(in_place) < 0.05 * size
    assert not large_writes(in_place, size)
    shifted = compiled(shift, *shapes, donate_argnums=0)
    assert bytes_per_step(shifted) > size
    assert large_writes(shifted, size)


def test_writing_a_number_into_each_row_costs_no_more_than_some_numbers():
    def record(kept, x):
        def turn(state):
            i, kept = state
            rows = jnp.arange(kept.shape[0])
            return i + 1, kept.at[rows, i].set(x * i.astype(F32), mode="drop")

        return jax.lax.while_loop(lambda s: s[0] < 1000, turn, (jnp.int32(0), kept))

    text = compiled(record, (16, 4096), (16,), donate_argnums=0)
    assert bytes_per_step(text) < 0.1 * 4 * 16 * 4096


# Buffers


def test_an_array_of_all_logits_is_seen_and_one_in_chunks_is_not():
    def loss(x, head, chunk):
        def part(total, rows):
            return total + jax.nn.logsumexp(rows @ head, axis=-1).sum(), None

        return jax.lax.scan(part, 0.0, x.reshape(-1, chunk, x.shape[-1]))[0]

    def rows(chunk):
        text = compiled(lambda x, head: loss(x, head, chunk), (256, 32), (32, 640))
        return report.read(text).most_rows(640, but=32)

    assert (rows(16), rows(256)) == (16, 256)
