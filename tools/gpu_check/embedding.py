"""The embedding's gradient, a sum of rows at the tokens' places: its share of an update."""

import contextlib
import math
from typing import Any

import jax

from alphamed_jax.benchmark.setup import make_batch, make_policy
from alphamed_jax.benchmark.timing import rolled_out, scored_rollouts
from alphamed_jax.compiled import hlo
from alphamed_jax.model.mesh import make_mesh
from alphamed_jax.rl import mini_batches
from alphamed_jax.runtime import distributed
from gpu_check import trace
from gpu_check.table import Failed, Setting
from gpu_check.work import config_of

MOST_SHARE = 0.1
"""Of an update. At the memory's own rate the sum would be below a hundredth of it."""
NO_GRAPHS = {"xla_gpu_enable_command_buffer": ""}
"""Kernels of a recorded graph do not say which instruction they are."""


def embedding(setting: Setting) -> dict:
    """Profile one update of SmolLM2-135M's shape, and time what sums up the rows."""
    config = config_of("bench-135m", setting.small)
    plain, compiled = mini_batches.update, []

    def by_kernel(*given: Any, objective: Any) -> Any:
        if not compiled:
            lowered = plain.lower(*given, objective=objective)
            compiled.append(lowered.compile(compiler_options=NO_GRAPHS))
        return compiled[0](*given)

    folder = f"{setting.folder}/profile"
    with distributed.start(1):
        mesh = make_mesh(config.mesh)
        policy, state = make_policy(config, mesh)
        mini_batches.update = by_kernel
        with jax.set_mesh(mesh):
            batch = make_batch(config, 0)
            found, _ = rolled_out(policy, config.train, state.params, batch, 0)
            scored = scored_rollouts(policy, config.train, found, batch)
            for profiled in (False, True):
                given = policy, config.train, state, None, found, scored
                with jax.profiler.trace(folder) if profiled else contextlib.nullcontext():
                    state, _ = jax.block_until_ready(mini_batches.update_policy(*given))
    text = compiled[0].as_text()
    return share(trace.read(folder), text, config.model.vocab_size, config.model.hidden_size)


def share(events: list[trace.Event], text: str, vocabulary: int, width: int) -> dict:
    """Share of the update in which the device adds up rows of the table.

    Raises:
      Failed: it is above `MOST_SHARE`, or the profile does not show it.
    """
    update = trace.of_module(events, "update")
    ops = sums_of_rows(text, vocabulary, width)
    own = trace.of_ops(update, ops)
    if not own:
        names = sorted({event.op or event.name for event in update})
        raise Failed(f"none of {ops} is among the events of jit_update: {names[:20]}")
    took, whole = trace.busy(own), trace.busy(update)
    figures = {
        "ops": ops,
        "ms": took / 1000,
        "update_busy_ms": whole / 1000,
        "share": took / whole,
        "bar_share": MOST_SHARE,
    }
    if figures["share"] > MOST_SHARE:
        raise Failed(f"{figures['share']:.2f} of the update adds up rows of the table", figures)
    return figures


def sums_of_rows(text: str, vocabulary: int, width: int) -> list[str]:
    """Instructions of a compiled update that add rows to an array [vocabulary, width].

    A scatter, a fusion with one inside, or the loop that a compiler makes of one.
    """
    program = hlo.parse(text)
    fusions = hlo.fused(program)

    def adds(i: hlo.Instruction) -> bool:
        if not any(math.prod(shape.dims) == vocabulary * width for shape in i.shapes):
            return False
        inner = program.computations.get(hlo.called(i, "calls") or "", {}).values()
        return (
            i.opcode == "scatter"
            or any(x.opcode == "scatter" for x in inner)
            or (i.opcode == "while" and "scatter-add" in i.attributes)
        )

    return sorted(
        i.name
        for name, computation in program.computations.items()
        if name not in fusions
        for i in computation.values()
        if adds(i)
    )
