"""What `tools/gpu_check.sh` reads: profiles of a GPU and of a CPU, and compiled programs."""

import pytest
from gpu_check import decoding, embedding, trace
from gpu_check.table import Failed


def named(pid, process, **threads):
    """Rows of a trace that name a process and its threads, by number."""
    rows = [{"ph": "M", "name": "process_name", "pid": pid, "args": {"name": process}}]
    return rows + [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": int(t[1:]), "args": {"name": name}}
        for t, name in threads.items()
    ]


def event(pid, tid, start, took, name, **told):
    return {"ph": "X", "pid": pid, "tid": tid, "ts": start, "dur": took, "name": name, "args": told}


def gpu_trace():
    """A decode loop of two steps on two streams, and an update; host and derived lines beside."""
    loop = {"hlo_module": "jit_decode"}
    return {
        "traceEvents": [
            *named(
                1, "/device:GPU:0", t7="Stream #7(Compute)", t9="Stream #9(Memcpy)", t1="XLA Ops"
            ),
            *named(2, "/host:CPU", t5="python"),
            event(2, 5, 0, 500, "PjitFunction(decode)"),
            event(1, 1, 90, 300, "decode", **loop),
            event(1, 7, 100, 40, "gemm_1", hlo_op="gemm.1", **loop),
            event(1, 9, 120, 30, "MemcpyD2H"),
            event(1, 7, 160, 40, "gemm_1", hlo_op="gemm.1", **loop),
            event(1, 7, 300, 10, "input_scatter_fusion", hlo_module="jit_update(3)"),
            event(1, 7, 310, 30, "fusion_2", hlo_op="fusion.2", hlo_module="jit_update(3)"),
            event(1, 7, 400, 10, "fusion", hlo_op="fusion", hlo_module="jit_updates"),
        ]
    }


def test_the_device_is_busy_where_any_of_its_streams_is():
    loop = trace.of_module(trace.events(gpu_trace()), "decode")
    assert [e.name for e in loop] == ["gemm_1", "MemcpyD2H", "gemm_1"]
    # 100 to 150 and 160 to 200, of 100.
    assert trace.busy(loop) == 90
    assert trace.gaps(loop) == [10]
    assert trace.of_module(trace.events(gpu_trace()), "unheard_of") == []


def test_kernels_are_found_by_their_instruction_or_by_their_name():
    update = trace.of_module(trace.events(gpu_trace()), "update")
    assert [e.start for e in update] == [300, 310]
    (found,) = trace.of_ops(update, ["input-scatter.fusion"])
    assert found.start == 300
    assert trace.of_ops(update, ["fusion.2"]) == [update[1]]


def test_on_a_cpu_operations_count_and_loops_around_them_do_not():
    rows = [
        *named(1, "/host:CPU", t3="tf_XLAEigen"),
        event(1, 3, 0, 100, "while.5", hlo_op="while.5", hlo_module="jit_decode"),
        event(1, 3, 10, 20, "dot.1", hlo_op="dot.1", hlo_module="jit_decode"),
        event(1, 3, 10, 90, "ThreadpoolListener::Record"),
    ]
    (found,) = trace.events({"traceEvents": rows})
    assert found == trace.Event(10, 30, "dot.1", "dot.1", "jit_decode")


def test_a_profile_that_is_not_whole_or_not_there_is_an_error(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no profile below"):
        trace.read(tmp_path)
    monkeypatch.setattr(trace, "MOST_EVENTS", 5)
    with pytest.raises(ValueError, match="of which JAX leaves out some"):
        trace.events(gpu_trace())


# -- compiled programs ---------------------------------------------------------------------------

LOOP = """HloModule jit_decode

%fused_copy (p.1: bf16[4,2,16,8]) -> bf16[4,2,8,16] {
  %p.1 = bf16[4,2,16,8]{3,2,1,0} parameter(0)
  ROOT %transpose.1 = bf16[4,2,8,16]{3,2,1,0} transpose(%p.1), dimensions={0,1,3,2}
}

%fused_write (p.2: bf16[4,2,16,8], p.3: bf16[4,2,1,8], p.4: s32[]) -> bf16[4,2,16,8] {
  %p.2 = bf16[4,2,16,8]{3,2,1,0} parameter(0)
  %p.3 = bf16[4,2,1,8]{3,2,1,0} parameter(1)
  %p.4 = s32[] parameter(2)
  ROOT %write.1 = bf16[4,2,16,8]{3,2,1,0} dynamic-update-slice(%p.2, %p.3, %p.4, %p.4, %p.4, %p.4)
}

%body (s.1: (bf16[4,2,16,8], bf16[4,2,1,8], s32[])) -> (bf16[4,2,16,8], bf16[4,2,1,8], s32[]) {
  %s.1 = (bf16[4,2,16,8]{3,2,1,0}, bf16[4,2,1,8]{3,2,1,0}, s32[]) parameter(0)
  %cache = bf16[4,2,16,8]{3,2,1,0} get-tuple-element(%s.1), index=0
  %new = bf16[4,2,1,8]{3,2,1,0} get-tuple-element(%s.1), index=1
  %at = s32[] get-tuple-element(%s.1), index=2
  INSTRUCTION
  %written = bf16[4,2,16,8]{3,2,1,0} fusion(%cache, %new, %at), kind=kLoop, calls=%fused_write
  ROOT %next = (bf16[4,2,16,8]{3,2,1,0}, bf16[4,2,1,8]{3,2,1,0}, s32[]) tuple(%written, %new, %at)
}

%condition (s.2: (bf16[4,2,16,8], bf16[4,2,1,8], s32[])) -> pred[] {
  %s.2 = (bf16[4,2,16,8]{3,2,1,0}, bf16[4,2,1,8]{3,2,1,0}, s32[]) parameter(0)
  ROOT %on = pred[] constant(true)
}

ENTRY %main (x: bf16[4,2,16,8], y: bf16[4,2,1,8], z: s32[]) -> bf16[4,2,16,8] {
  %x = bf16[4,2,16,8]{3,2,1,0} parameter(0)
  %y = bf16[4,2,1,8]{3,2,1,0} parameter(1)
  %z = s32[] parameter(2)
  %before = bf16[4,2,16,8]{3,2,1,0} copy(%x)
  %start = (bf16[4,2,16,8]{3,2,1,0}, bf16[4,2,1,8]{3,2,1,0}, s32[]) tuple(%before, %y, %z)
  %loop = (bf16[4,2,16,8], bf16[4,2,1,8], s32[]) while(%start), condition=%condition, body=%body
  ROOT %end = bf16[4,2,16,8]{3,2,1,0} get-tuple-element(%loop), index=0
}
"""


@pytest.mark.parametrize(
    ("instruction", "copies"),
    [
        ("", []),
        ("%again = bf16[4,2,16,8]{3,2,1,0} copy(%cache)", ["again"]),
        (
            "%turned = bf16[4,2,8,16]{3,2,1,0} fusion(%cache), kind=kLoop, calls=%fused_copy",
            ["turned"],
        ),
        ("%little = bf16[4,2,1,8]{3,2,1,0} copy(%new)", []),
    ],
)
def test_copies_of_a_cache_within_the_loop_are_found(instruction, copies):
    text = LOOP.replace("INSTRUCTION", instruction)
    assert decoding.cache_copies(text, (4, 2, 16, 8)) == copies


UPDATE = """HloModule jit_update

%fused_scatter (p.1: f32[320,64], p.2: s32[9,1], p.3: f32[9,1,64]) -> f32[320,64] {
  %p.1 = f32[320,64]{1,0} parameter(0)
  %p.2 = s32[9,1]{1,0} parameter(1)
  %p.3 = f32[9,1,64]{2,1,0} parameter(2)
  ROOT %scatter.1 = f32[320,64]{1,0} scatter(%p.1, %p.2, %p.3), to_apply=%add
}

ENTRY %main (x: f32[320,64], i: s32[9,1], y: f32[9,1,64]) -> f32[320,64] {
  %x = f32[320,64]{1,0} parameter(0)
  %i = s32[9,1]{1,0} parameter(1)
  %y = f32[9,1,64]{2,1,0} parameter(2)
  %few = s32[9,1]{1,0} scatter(%i, %i, %i), to_apply=%add
  %input-scatter.fusion = f32[320,64]{1,0} fusion(%x, %i, %y), kind=kInput, calls=%fused_scatter
  ROOT %scaled = f32[320,64]{1,0} multiply(%input-scatter.fusion, %x)
}
"""


def test_the_sum_of_rows_of_the_table_is_found_in_the_compiled_update():
    assert embedding.sums_of_rows(UPDATE, 320, 64) == ["input-scatter.fusion"]
    assert embedding.sums_of_rows(UPDATE, 321, 64) == []


def test_its_share_of_an_update_is_measured_and_bounded():
    events = trace.events(gpu_trace())
    # 10 of 40 microseconds.
    with pytest.raises(Failed, match=r"0\.25 of the update adds up rows") as found:
        embedding.share(events, UPDATE, 320, 64)
    assert found.value.figures["share"] == 0.25
    longer = [e._replace(end=e.end + 200) if e.op == "fusion.2" else e for e in events]
    assert embedding.share(longer, UPDATE, 320, 64)["share"] == 10 / 240
    with pytest.raises(Failed, match="is among the events of jit_update"):
        embedding.share(events, UPDATE, 321, 64)
