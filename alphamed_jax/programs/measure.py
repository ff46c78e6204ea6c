"""One program compiled for the devices of a planned step, and what the result costs."""

import time
from typing import Any, NamedTuple

import jax

from alphamed_jax.compiled import report
from alphamed_jax.compiled.report import ProgramReport
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Program


class Compiled(NamedTuple):
    """What one program costs on one device, and what compiling it took."""

    report: ProgramReport
    arguments: int
    """Bytes of memory; results that take over an argument's memory count there."""
    results: int
    temporaries: int
    """All that are ever made; some take over the place of others."""
    peak: int
    """Most bytes in use at once, as the compiler laid them out."""
    lower_seconds: float
    compile_seconds: float
    xla_flops: float
    """As `cost_analysis` says: each loop counts once, vector operations are included."""
    xla_bytes: float
    """As `cost_analysis` says: each loop counts once, and VMEM is counted like HBM."""

    def as_json(self) -> dict[str, Any]:
        """All of it but for the lists that bars are made of."""
        told, rest = self.report, self._asdict()
        del rest["report"]
        return {
            **told.work._asdict(),
            "per_iteration": told.per_iteration._asdict(),
            "loop_traffic": told.loop_traffic,
            "collectives": told.collectives,
            **rest,
        }


def measure(program: Program, step: PlannedStep) -> Compiled | str:
    """Compile a program, and read the result; if it does not fit, what the compiler says."""
    started = time.perf_counter()
    lowered = program.lower(step)
    between = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        # The compiler refuses a program that no device of this kind can hold.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
    ended = time.perf_counter()
    sizes = compiled.memory_analysis()
    assert sizes is not None, "TPU programs tell their memory"
    by_xla: Any = compiled.cost_analysis() or {}
    return Compiled(
        report=report.read(compiled.as_text() or ""),
        arguments=sizes.argument_size_in_bytes,
        results=sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        temporaries=sizes.temp_size_in_bytes,
        peak=sizes.peak_memory_in_bytes,
        lower_seconds=round(between - started, 1),
        compile_seconds=round(ended - between, 1),
        xla_flops=by_xla.get("flops", 0.0),
        xla_bytes=by_xla.get("bytes accessed", 0.0),
    )
