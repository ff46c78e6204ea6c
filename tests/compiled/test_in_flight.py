"""What a TPU sends while it computes counts once, however many fusions it is handed through."""

# ruff: noqa: E501  (lines of HLO)
import pytest

from alphamed_jax.compiled import collectives, costs, hlo, report

SENT = """
HloModule jit_f, is_scheduled=true

%start (p: f32[64,128]) -> (f32[64,128], f32[256,128], u32[]) {
  %p = f32[64,128]{1,0:T(8,128)} parameter(0)
  %all-gather.1 = f32[256,128]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %begun = (f32[64,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}, u32[]{:S(2)}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%work (p.1: f32[64,128], b.1: f32[256,128], s.1: u32[], x.1: f32[512,128]) -> (f32[512,128], f32[64,128], f32[256,128], f32[256,128], u32[]) {
  %p.1 = f32[64,128]{1,0:T(8,128)} parameter(0)
  %b.1 = f32[256,128]{1,0:T(8,128)} parameter(1)
  %s.1 = u32[]{:S(2)} parameter(2)
  %x.1 = f32[512,128]{1,0:T(8,128)} parameter(3)
  %y.1 = f32[512,128]{1,0:T(8,128)} negate(%x.1)
  %all-gather.2 = f32[256,128]{1,0:T(8,128)} all-gather(%p.1), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %out = (f32[512,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}, u32[]{:S(2)}) tuple(%y.1, %p.1, %b.1, %all-gather.2, %s.1)
}

%done (p.2: f32[64,128], b.2: f32[256,128], s.2: u32[]) -> f32[256,128] {
  %p.2 = f32[64,128]{1,0:T(8,128)} parameter(0)
  %b.2 = f32[256,128]{1,0:T(8,128)} parameter(1)
  %all-gather.3 = f32[256,128]{1,0:T(8,128)} all-gather(%p.2), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  %s.2 = u32[]{:S(2)} parameter(2)
  ROOT %all = f32[256,128]{1,0:T(8,128)} custom-call(%p.2, %b.2, %all-gather.3, %s.2), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (x: f32[512,128], w: f32[64,128]) -> (f32[512,128], f32[256,128]) {
  %x = f32[512,128]{1,0:T(8,128)} parameter(0)
  %w = f32[64,128]{1,0:T(8,128)} parameter(1)
  %s0 = (f32[64,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}, u32[]{:S(2)}) fusion(%w), kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%start
  %p0 = f32[64,128]{1,0:T(8,128)} get-tuple-element(%s0), index=0
  %b0 = f32[256,128]{1,0:T(8,128)} get-tuple-element(%s0), index=1
  %f0 = u32[]{:S(2)} get-tuple-element(%s0), index=2
WORK
  %end = f32[256,128]{1,0:T(8,128)} fusion(%pLAST, %bLAST, %fLAST), kind=kCustom, output_to_operand_aliasing={{}: (1, {})}, calls=%done
  ROOT %both = (f32[512,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}) tuple(%x, %end)
}
"""
WORK = """\
  %wNEXT = (f32[512,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}, u32[]{:S(2)}) fusion(%pTHIS, %bTHIS, %fTHIS, %x), kind=kOutput, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), {3}: (1, {}), {4}: (2, {})}, calls=%work
  %pNEXT = f32[64,128]{1,0:T(8,128)} get-tuple-element(%wNEXT), index=1
  %bNEXT = f32[256,128]{1,0:T(8,128)} get-tuple-element(%wNEXT), index=2
  %fNEXT = u32[]{:S(2)} get-tuple-element(%wNEXT), index=4"""
SOURCE, RESULT, OTHER = 4 * 64 * 128, 4 * 256 * 128, 4 * 512 * 128


@pytest.mark.parametrize("fusions", [0, 1, 4])
def test_buffers_in_flight_count_once(fusions):
    # Given a gather that is under way while so many other fusions run,
    work = [WORK.replace("THIS", str(i)).replace("NEXT", str(i + 1)) for i in range(fusions)]
    text = SENT.replace("WORK", "\n".join(work)).replace("LAST", str(fusions))
    program = hlo.parse(text)
    moved = costs.computation_traffic(program, program.entry)
    # then it reads its source and writes its result once, and they do their own work.
    assert moved.read == SOURCE + fusions * OTHER
    assert moved.written == RESULT + fusions * OTHER


def test_what_is_sent_meanwhile_is_told_from_what_is_waited_for():
    work = WORK.replace("THIS", "0").replace("NEXT", "1")
    text = SENT.replace("WORK", work).replace("LAST", "1")
    sent = RESULT * 3 // 4
    assert collectives.sent_bytes(text) == sent
    assert collectives.sent_bytes(text, overlapped=True) == sent
    assert report.read(text).overlapped == sent
    # The same gather in its place, of which nothing is told apart.
    waited = text.replace('custom_call_target="AsyncCollectiveStart"', 'custom_call_target="Other"')
    assert collectives.sent_bytes(waited) == sent
    assert collectives.sent_bytes(waited, overlapped=True) == 0


def test_a_sum_within_a_fusion_that_hands_nothing_on_counts_in_full():
    text = SENT.replace("WORK\n", "").replace("LAST", "0")
    alone = text.replace(", output_to_operand_aliasing={{}: (1, {})}", "").replace(
        "%p0 = f32[64,128]{1,0:T(8,128)} get-tuple-element(%s0), index=0",
        "%p0 = f32[64,128]{1,0:T(8,128)} copy(%w)",
    )
    program = hlo.parse(alone)
    assert costs.computation_traffic(program, program.entry).written > RESULT + SOURCE


def test_aliases_are_read_in_every_spelling():
    def of(text):
        given = hlo.Instruction(False, "x", (), "fusion", (), f"), {text}, calls=%f", "")
        return hlo.aliases(given)

    assert of("output_to_operand_aliasing={{}: (1, {})}") == {0: 1}
    assert of("output_to_operand_aliasing={{1}: (0, {}), {3}: (1, {0})}") == {1: 0, 3: 1}
    assert of("kind=kLoop") == {}
