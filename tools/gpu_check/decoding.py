"""The decode loop: whether the device waits for the host, and whether caches stay in place."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from alphamed_jax.benchmark.setup import BenchConfig, make_batch, make_policy
from alphamed_jax.benchmark.timing import rolled_out
from alphamed_jax.compiled import closed_form, hlo, report
from alphamed_jax.model.mesh import make_mesh
from alphamed_jax.programs import PROGRAMS
from alphamed_jax.programs.planned import PlannedStep, StepShape
from alphamed_jax.programs.record import Program
from alphamed_jax.rl import decode as engine
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.policy import Policy
from alphamed_jax.rl.update import Objective
from alphamed_jax.runtime import distributed
from gpu_check import trace
from gpu_check.table import Failed, Setting
from gpu_check.work import config_of

LEAST_BUSY = 0.8
"""Of the loop's wall time. Kernels of a few microseconds leave gaps of one or two between them; a
loop that asked the host at each step would be far below."""


def decode(setting: Setting) -> dict:
    """One rollout with a profile, and the text of the compiled loop."""
    config = config_of("bench-135m", setting.small)
    if not setting.gpu:
        # XLA for CPUs computes bfloat16 by way of float32, and copies a cache for that.
        config = dataclasses.replace(config, dtype="float32")
    with distributed.start(1):
        mesh = make_mesh(config.mesh)
        policy, state = make_policy(config, mesh)
        with jax.set_mesh(mesh):
            profiled = _rollout(setting, config, policy, state.params)
            step = planned(config, mesh, policy.objective(config.train))
            copies = of_loop(step, decode_program().lower(step).compile())
    figures = {**profiled, **copies.as_json()}
    wrong = []
    if profiled["calls"] != 1:
        wrong.append(f"decoding was {profiled['calls']} calls, not one")
    if setting.gpu and not profiled["busy"] >= LEAST_BUSY:
        wrong.append(f"the device is busy for {profiled['busy']:.2f} of the loop")
    if copies.found:
        wrong.append(f"the loop copies caches: {', '.join(copies.found)}")
    if copies.aliased < copies.caches:
        wrong.append("the caches are not given over to the program")
    if wrong:
        raise Failed("; ".join(wrong), figures)
    return figures


def _rollout(setting: Setting, config: BenchConfig, policy: Policy, params: Any) -> dict:
    """How busy the device is in the decode loop of a rollout, and how the rest of it looks."""
    calls = []
    plain = engine.decode

    @functools.wraps(plain)
    def counted(*given: Any, **options: Any) -> Any:
        calls.append(1)
        return plain(*given, **options)

    rolled_out(policy, config.train, params, make_batch(config, 0), 0)
    folder = f"{setting.folder}/profile"
    engine.decode = counted
    try:
        with jax.profiler.trace(folder):
            _, usage = rolled_out(policy, config.train, params, make_batch(config, 1), 1)
    finally:
        engine.decode = plain
    everything = trace.read(folder)
    loop = trace.of_module(everything, "decode")
    if not loop:
        known = sorted({event.module for event in everything})
        raise Failed(f"no event of the profile is of jit_decode, but of {known}")
    wall = max(event.end for event in loop) - loop[0].start
    waits = trace.gaps(loop)
    return {
        "calls": len(calls),
        "steps": usage.steps,
        "ms_per_step": wall / 1000 / usage.steps,
        "events_per_step": len(loop) / usage.steps,
        "busy": trace.busy(loop) / wall,
        "gap_us_longest": waits[0] if waits else 0.0,
        "gap_us_median": waits[len(waits) // 2] if waits else 0.0,
        "bar_busy": LEAST_BUSY,
    }


class Copies(NamedTuple):
    """What the compiled loop does to the caches."""

    found: list[str]
    """Instructions within the loop that copy a layer's cache."""
    caches: int
    """Bytes of all of them."""
    aliased: int
    """Bytes of arguments that results take the place of."""
    temporaries: int
    moved: int
    """Bytes that the instructions of a step read and write, those that a GPU's own cache serves
    among them."""
    needed: int
    """Bytes of weights and caches that it reads at least, as `compiled.closed_form` has them."""

    def as_json(self) -> dict:
        return {
            "cache_copies_in_loop": self.found,
            "cache_mb": self.caches / 2**20,
            "aliased_mb": self.aliased / 2**20,
            "temporaries_mb": self.temporaries / 2**20,
            "step_mb": self.moved / 2**20,
            "step_of_needed": self.moved / self.needed,
        }


def planned(config: BenchConfig, mesh: Mesh, objective: Objective) -> PlannedStep:
    """The arrays of a step of `bench`, whose responses are all of one length."""
    work = config.work
    shape = StepShape(
        prompts=work.prompts,
        group=work.generations,
        prompt_width=bucket(work.prompt_len),
        response=work.completion_len,
        micro_batch=config.train.update.micro_batch,
    )
    return PlannedStep(config.model, mesh, shape, objective, config.lora)


def decode_program() -> Program:
    """The record of the decode loop."""
    (program,) = (program for program in PROGRAMS if program.name == "decode")
    return program


def of_loop(step: PlannedStep, compiled: jax.stages.Compiled) -> Copies:
    """What the compiled decode loop of a step does to its caches."""
    text, sizes = compiled.as_text() or "", compiled.memory_analysis()
    caches = jax.tree.leaves(step.decode_state.caches)
    return Copies(
        cache_copies(text, caches[0].shape),
        sum(math.prod(x.shape) * x.dtype.itemsize for x in caches),
        sizes.alias_size_in_bytes,
        sizes.temp_size_in_bytes,
        report.read(text).loop_traffic or 0,
        needed_bytes(step),
    )


def needed_bytes(step: PlannedStep) -> int:
    """Bytes of weights and caches that a decode step reads on one device."""
    model, width = step.model, step.objective.compute.dtype.itemsize
    own = closed_form.cache_bytes(model, step.responses, step.capacity, 1, width)
    prompts = closed_form.cache_bytes(model, step.shape.prompts, step.shape.prompt_width, 1, width)
    return closed_form.decode_weight_bytes(model, 1, width) + own + prompts


def cache_copies(text: str, cache: tuple[int, ...]) -> list[str]:
    """Instructions within the loops of a program that copy an array of a cache's size.

    A copy is one by name, or a fusion of nothing but a copy or a transposition of all of it. What
    writes a slice into the cache in place is none.
    """
    program = hlo.parse(text)
    size = math.prod(cache)

    def is_copy(i: hlo.Instruction) -> bool:
        if not any(math.prod(shape.dims) == size for shape in i.shapes):
            return False
        if i.opcode in ("copy", "copy-start", "transpose"):
            return True
        inner = program.computations.get(hlo.called(i, "calls") or "", {})
        opcodes = {x.opcode for x in inner.values()} - {"parameter", "bitcast"}
        return i.opcode == "fusion" and bool(opcodes) and opcodes <= {"copy", "transpose"}

    return [i.name for i in _in_loops(program) if is_copy(i)]


def _in_loops(program: hlo.Program) -> Iterator[hlo.Instruction]:
    """Instructions of all loops' bodies and of what these call, without the inside of fusions."""
    seen: set[str] = set()

    def visit(name: str) -> Iterator[hlo.Instruction]:
        if name in seen or name not in program.computations:
            return
        seen.add(name)
        for i in program.computations[name].values():
            yield i
            for attribute in ("body", "to_apply"):
                yield from visit(hlo.called(i, attribute) or "")
            for branch in hlo.branches(i):
                yield from visit(branch)

    for computation in list(program.computations.values()):
        for i in computation.values():
            if i.opcode == "while":
                yield from visit(hlo.called(i, "body") or "")
