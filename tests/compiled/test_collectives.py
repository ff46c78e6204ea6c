"""What programs send between devices: kinds, bytes, groups, and loops around them."""

import jax
import jax.numpy as jnp
import pytest
from helpers import mesh_like
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alphamed_jax.compiled import hlo
from alphamed_jax.compiled.collectives import (
    Collective,
    collective_bytes,
    collectives,
    group_size,
    sent_bytes,
)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-gather", 75),
        ("all-reduce", 150),
        ("reduce-scatter", 300),
        ("all-to-all", 75),
        ("collective-permute", 100),
    ],
)
def test_a_ring_of_four_sends_what_its_algorithm_must(kind, sent):
    assert Collective(kind, {"f32": 60, "bf16": 40}, 4, 1).sent == sent


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['axis_0'=1,'axis_1'=2,'axis_2'=4] {'axis_1'}", 2),
        ("mesh['a'=2,'b'=4] {'a','b'}", 8),
        ("mesh['a'=8] {'a':(2)4}", 4),
        ("mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}", 4),
    ],
)
def test_groups_are_read_in_every_spelling(groups, size):
    given = hlo.Instruction(False, "x", (), "all-gather", (), f", replica_groups={groups}", "")
    assert group_size(given) == size


def test_a_spelling_that_is_not_known_is_no_group_of_one():
    given = hlo.Instruction(False, "x", (), "all-gather", (), ", replica_groups=?", "")
    with pytest.raises(ValueError, match="groups of x"):
        group_size(given)


def summed_in_a_loop(turns):
    """Text of a program whose loop sums an array over eight devices at each turn."""
    mesh = mesh_like("1x8")

    def body(_, x):
        return jax.shard_map(
            lambda y: jax.lax.psum(y, "tensor") / 8,
            mesh=mesh,
            in_specs=P(None),
            out_specs=P(None),
            check_vma=False,
        )(x)

    x = jax.ShapeDtypeStruct((64,), jnp.float32, sharding=NamedSharding(mesh, P(None)))
    n = jax.ShapeDtypeStruct((), jnp.int32)
    if turns is None:
        lowered = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, body, x)).lower(x, n)
    else:
        lowered = jax.jit(lambda x: jax.lax.fori_loop(0, turns, body, x)).lower(x)
    return lowered.compile().as_text()


def test_a_collective_in_a_loop_counts_at_every_turn():
    text = summed_in_a_loop(3)
    assert collective_bytes(text) == {"all-reduce": {"f32": 3 * 256}}
    assert sent_bytes(text) == 3 * 2 * 256 * 7 / 8


def test_in_a_loop_of_unknown_length_it_counts_as_often_as_told():
    text = summed_in_a_loop(None)
    assert [sent_bytes(text, turns) for turns in (1, 5)] == [448, 5 * 448]


SCATTERED = """
HloModule jit_f, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (x: f32[64,128]) -> f32[16,128] {
  %x = f32[64,128]{1,0:T(8,128)} parameter(0)
  %all = f32[64,128]{1,0:T(8,128)} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8]
  %i = s32[] constant(0)
  ROOT %mine = f32[16,128]{1,0:T(8,128)} dynamic-slice(%all, %i, %i), dynamic_slice_sizes={16,128}
}

ENTRY %main (x: f32[64,128]) -> f32[16,128] {
  %x = f32[64,128]{1,0:T(8,128)} parameter(0)
  ROOT %f = f32[16,128]{1,0:T(8,128)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_a_sum_of_which_each_device_keeps_a_slice_is_a_reduce_scatter():
    (found,) = collectives(hlo.parse(SCATTERED))
    assert found == Collective("reduce-scatter", {"f32": 16 * 128 * 4}, 4, 1)
    assert found.sent == 3 * 16 * 128 * 4
