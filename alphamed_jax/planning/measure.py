"""Costs of programs: compiled where there is a compiler for the devices, else estimated."""

import time
from collections.abc import Callable, Iterable

from alphamed_jax.planning.cost import Cost, compiled_cost, estimated_cost, refused_cost
from alphamed_jax.planning.devices import Devices
from alphamed_jax.programs.measure import measure
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Program
from alphamed_jax.runtime.streams import say

Measure = Callable[[Program, PlannedStep], Cost]


def compiling(program: Program, step: PlannedStep) -> Cost:
    """Compile a program for its mesh's devices."""
    sizes = "x".join(map(str, program.mesh(step).shape.values()))
    say(f"compiling {program.name} for mesh {sizes} ...", end="")
    began = time.perf_counter()
    found = measure(program, step)
    seconds = time.perf_counter() - began
    if isinstance(found, str):
        say(f" refused after {seconds:.0f} s: {found}")
        return refused_cost(found, estimated_cost(program, step))
    say(f" {seconds:.0f} s")
    return compiled_cost(found)


def measure_for(devices: Devices) -> Measure:
    """How programs are measured for these devices."""
    return compiling if devices.compiled else estimated_cost


def measure_all(
    programs: Iterable[Program], step: PlannedStep, measure: Measure
) -> dict[Program, Cost]:
    """Costs of several programs."""
    return {program: measure(program, step) for program in programs}
