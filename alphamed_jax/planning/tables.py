"""What a plan prints: tables in Markdown, which are read as well on a terminal."""

from collections.abc import Mapping, Sequence

from alphamed_jax.compiled.topology import GIB, Chip
from alphamed_jax.planning.cost import Cost
from alphamed_jax.planning.expected import Expected
from alphamed_jax.planning.fit import PhaseMemory
from alphamed_jax.planning.roofline import seconds
from alphamed_jax.programs.record import Program

Number = float | int
COLUMNS = {
    "weights": "weights",
    "optimizer": "optimiser",
    "decode_weights": "decode weights",
    "caches": "caches",
    "batch": "batch",
    "copy": "copy",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned: the first to the left, the others to the right.

    Args:
      rows: as many cells each as the header has.
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def show(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths))
    return "\n".join([show(header), f"|{rule}|", *map(show, rows)])


def gib(size: Number) -> str:
    """Bytes as GiB: two digits after the point, or as many as show something, a KiB at least."""
    few = 2**10 <= size < GIB / 10
    return f"{size / GIB:.2g}" if few else f"{size / GIB:.2f}"


def scaled(number: Number, unit: str = "") -> str:
    """A number with three digits and a prefix, as 1.23 T."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 1000 or prefix == "P":
            return f"{number:.3g} {prefix}{unit}".strip()
        number /= 1000
    raise AssertionError("the last prefix takes all")


def duration(time: Number) -> str:
    """Seconds as ms, s, min or h."""
    for size, unit in ((3600, "h"), (120, "min"), (1, "s"), (1e-3, "ms")):
        if time >= size:
            return f"{time / (60 if unit == 'min' else size):.3g} {unit}"
    return "0" if time == 0 else "< 1 ms"


def memory_table(
    phases: dict[str, PhaseMemory], costs: dict[Program, Cost], capacity: Number
) -> str:
    """GiB per chip in each phase, against the capacity."""
    rows = []
    estimated = {program.name for program, cost in costs.items() if cost.estimated}
    for name, there in phases.items():
        verdict = "yes" if there.fits else "NO: refused" if there.refused else "NO"
        parts = [gib(there.parts[part]) for part in COLUMNS]
        total = f"{gib(there.total)}{'*' if name in estimated else ''}"
        rows.append([name, *parts, gib(there.temporaries), total, gib(capacity), verdict])
    header = ["GiB per chip", *COLUMNS.values(), "temporaries", "total", "capacity", "fits"]
    return table(header, rows)


def moved(kinds: Mapping[str, Number]) -> str:
    """Bytes by kind of collective, largest first."""
    return ", ".join(
        f"{kind} {scaled(size, 'B')}"
        for kind, size in sorted(kinds.items(), key=lambda item: -item[1])
        if size
    )


def phase_table(costs: dict[Program, Cost], chip: Chip) -> str:
    """Work and roofline time of each program; open loops with one iteration."""
    rows = []
    for program, cost in costs.items():
        time = seconds(cost.work, chip)
        unit = f"{program.name}, {program.unit}" if program.unit else program.name
        rows.append(
            [
                f"{unit}{' *' if cost.estimated else ''}",
                scaled(cost.work.flops),
                scaled(cost.work.traffic, "B"),
                moved(cost.moved) or "none",
                *map(duration, time),
                duration(time.serial),
                time.bound if time.serial else "",
            ]
        )
    header = ["per chip", "FLOPs", "memory traffic", "collectives", "products", "memory"]
    return table([*header, "links", "roofline", "bound by"], rows)


def expected_table(expected: Sequence[Expected]) -> str:
    """A step and an epoch for each expected length."""
    rows = []
    for e in expected:
        rollout = e.stages.get("rollout", 0.0)
        rows.append(
            [
                f"{e.mean} mean, {e.longest} longest",
                str(e.decode_steps),
                str(e.micro_batches),
                *map(duration, (rollout, e.step - rollout)),
                duration(e.step),
                duration(e.hidden),
                f"{e.generated_per_second:,.0f}",
                duration(e.epoch),
            ]
        )
    header = ["response tokens", "decode steps", "micro-batches", "rollout", "update"]
    return table([*header, "step", "step, hidden", "tokens/s", "epoch"], rows)
