"""How often a loop turns: from its start, step and bound, wherever a compiler has put them."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from alphamed_jax.compiled import costs, hlo
from alphamed_jax.compiled.loops import trip_count, turns

LOOP = """
HloModule jit_f

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]) parameter(0)
  %at = s32[] get-tuple-element(%state), index=0
  %x = f32[8] get-tuple-element(%state), index=1
  %step = s32[] constant(STEP)
  %next = s32[] add(%at, %step)
  %y = f32[8] negate(%x)
  ROOT %out = (s32[], f32[8]) tuple(%next, %y)
}

%condition (state.1: (s32[], f32[8])) -> pred[] {
  %state.1 = (s32[], f32[8]) parameter(0)
  %at.1 = s32[] get-tuple-element(%state.1), index=0
  %end = s32[] constant(END)
  ROOT %go = pred[] compare(%at.1, %end), direction=WAY
}

ENTRY %main (x.1: f32[8]) -> (s32[], f32[8]) {
  %x.1 = f32[8] parameter(0)
  %start = s32[] constant(START)
  %t = (s32[], f32[8]) tuple(%start, %x.1)
  ROOT %l = (s32[], f32[8]) while(%t), condition=%condition, body=%body
}
"""


def loop_of(text):
    program = hlo.parse(text)
    (loop,) = (i for c in program.computations.values() for i in c.values() if i.opcode == "while")
    return program, loop


def loop_text(start, step, end, way):
    known = {"START": start, "STEP": step, "END": end, "WAY": way}
    text = LOOP
    for name, value in known.items():
        text = text.replace(name, str(value))
    return text


COMPARE = {
    "LT": int.__lt__,
    "LE": int.__le__,
    "GT": int.__gt__,
    "GE": int.__ge__,
    "NE": int.__ne__,
    "EQ": int.__eq__,
}


@pytest.mark.parametrize("way", COMPARE)
def test_turns_are_those_of_the_loop_itself(way):
    for start, step, end in itertools.product((-3, 10), (-4, 1, 3), (-8, 9, 10)):
        at, counted = start, 0
        while COMPARE[way](at, end) and counted < 100:
            at, counted = at + step, counted + 1
        wanted = None if counted == 100 else counted
        found = trip_count(*loop_of(loop_text(start, step, end, way)))
        assert found == wanted, (start, step, end)


def test_traffic_counts_the_turns_and_not_the_bound():
    text = loop_text(2, 3, 12, "LT")  # 2 5 8 11
    program = hlo.parse(text)
    assert costs.computation_traffic(program, program.entry).total == 4 * (2 * 8 * 4 + 3 * 4)


def test_a_bound_on_the_left_and_one_in_the_state_are_found():
    swapped = loop_text(0, 2, 9, "GT").replace("compare(%at.1, %end)", "compare(%end, %at.1)")
    assert trip_count(*loop_of(swapped)) == 5
    carried = (
        loop_text(0, 2, 9, "LT")
        .replace("(s32[], f32[8])", "(s32[], f32[8], s32[])")
        .replace("%end = s32[] constant(9)", "%end = s32[] get-tuple-element(%state.1), index=2")
        .replace("tuple(%next, %y)", "tuple(%next, %y, %same)")
        .replace("  %y = ", "  %same = s32[] get-tuple-element(%state), index=2\n  %y = ")
        .replace("tuple(%start, %x.1)", "tuple(%start, %x.1, %bound)")
        .replace("  %t = ", "  %bound = s32[] constant(9)\n  %t = ")
    )
    assert trip_count(*loop_of(carried)) == 5


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("%start = s32[] constant(0)", "%start = s32[] custom-call()"),
        ("%next = s32[] add(%at, %step)", "%next = s32[] multiply(%at, %step)"),
        ("%next = s32[] add(%at, %step)", "%next = s32[] add(%at, %at)"),
        ("%end = s32[] constant(9)", "%end = s32[] custom-call()"),
    ],
)
def test_what_only_the_run_knows_is_unknown(old, new):
    text = loop_text(0, 1, 9, "LT")
    assert old in text
    assert trip_count(*loop_of(text)) == 9
    assert trip_count(*loop_of(text.replace(old, new))) is None


@pytest.mark.parametrize(
    ("start", "step", "end"), [(0, 1, 6), (3, 1, 10), (0, 2, 9), (20, -3, 0), (5, 4, 6)]
)
def test_compiled_programs_multiply_as_often_as_python_would(start, step, end):
    def run(x, w):
        def turn(state):
            i, x = state
            return i + step, x @ w

        def more(state):
            return state[0] < end if step > 0 else state[0] > end

        return jax.lax.while_loop(more, turn, (jnp.int32(start), x))[1]

    shape = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    text = jax.jit(run).lower(shape, shape).compile().as_text()
    wanted = len(range(start, end, step)) * 2 * 16**3
    assert costs.matmul_flops(text) == wanted
    # and without XLA's note
    noted = '"known_trip_count":{"n":'
    assert costs.matmul_flops(text.replace(noted, '"other":{"n":')) == wanted


def test_turns_without_an_end_are_none():
    assert turns(-1, 0, "LT") is None
    assert turns(0, -1, "LE") is None
