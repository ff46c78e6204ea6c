"""Costs of phases: compiled where there is a compiler for the devices, else estimated."""

import time
from collections.abc import Callable, Iterable

from alphamed_jax.compiled import programs
from alphamed_jax.compiled.arguments import Case, lowerings
from alphamed_jax.planning.devices import Devices
from alphamed_jax.planning.estimate import estimate
from alphamed_jax.planning.phase import PhaseCost, compiled_cost, refused_cost
from alphamed_jax.runtime.streams import say

Measure = Callable[[Case, str], PhaseCost]


def compiling(case: Case, name: str) -> PhaseCost:
    """Compile one phase for its mesh's devices."""
    sizes = "x".join(map(str, case.mesh.shape.values()))
    say(f"compiling {name} for mesh {sizes} ...", end="")
    began = time.perf_counter()
    phase = programs.measure(case, name, lowerings(case)[name])
    seconds = time.perf_counter() - began
    if isinstance(phase, str):
        say(f" refused after {seconds:.0f} s: {phase}")
        return refused_cost(phase, estimate(case)[name])
    say(f" {seconds:.0f} s")
    return compiled_cost(phase)


def estimating(case: Case, name: str) -> PhaseCost:
    """Estimate one phase from shapes."""
    return estimate(case)[name]


def measure_for(devices: Devices) -> Measure:
    """How phases are measured for these devices."""
    return compiling if devices.compiled else estimating


def measure_all(case: Case, names: Iterable[str], measure: Measure) -> dict[str, PhaseCost]:
    """Costs of several phases."""
    return {name: measure(case, name) for name in names}
