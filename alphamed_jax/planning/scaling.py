"""The step on more and more chips with the same work for each: what growing costs."""

from typing import Any, NamedTuple

from alphamed_jax.config import Config
from alphamed_jax.errors import UserError
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import parse_mesh
from alphamed_jax.planning import tables
from alphamed_jax.planning.devices import Devices, devices_for
from alphamed_jax.planning.expected import ASSUMPTIONS, Expected, expect
from alphamed_jax.planning.fit import PhaseMemory, memory_of
from alphamed_jax.planning.flags import PlanFlags, mean_lengths
from alphamed_jax.planning.measure import measure_all, measure_for
from alphamed_jax.planning.step import planned_step
from alphamed_jax.planning.suggest import Change, apply
from alphamed_jax.programs import planned_programs

CHIPS = (16, 64, 256)
# Squares of the 2D tori, and the nearest to cubes of the 3D ones.
_SHAPES = {"v5e": ("4x4", "8x8", "16x16"), "v4": ("2x2x4", "4x4x4", "4x8x8")}
SHAPES = _SHAPES | {"v6e": _SHAPES["v5e"], "v5p": _SHAPES["v4"]}


class Size(NamedTuple):
    """The step on one number of chips."""

    devices: Devices
    config: Config
    phases: dict[str, PhaseMemory]
    expected: Expected
    refused: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every phase fits."""
        return all(there.fits for there in self.phases.values())


def grown(config: Config, base: Devices, chips: int) -> Config:
    """The configuration on so many chips: work per chip and the tensor axis as on `base`.

    Raises:
      UserError: the tensor axis does not divide the chips, or a chip's share is not whole.
    """
    tensor, before = base.mesh.shape["tensor"], base.mesh.size
    if chips % tensor:
        raise UserError(f"--scaling: {chips} chips are no multiple of the tensor axis ({tensor}).")

    def share(name: str, value: int) -> int:
        if value * chips % before:
            raise UserError(
                f"--scaling: {name} {value} on {before} chips is no whole number on {chips}; "
                f"give a multiple of {before // 16 or 1}."
            )
        return value * chips // before

    rollout, own = config.rollout, config.update.mesh
    own_tensor = parse_mesh(own, before, "--update.mesh")[2] if own else tensor
    if chips % own_tensor:
        raise UserError(
            f"--scaling: {chips} chips are no multiple of the tensor axis of --update.mesh "
            f"({own_tensor})."
        )
    changes = [
        Change("mesh", f"{chips // tensor}x{tensor}"),
        Change("rollout.prompts", share("rollout.prompts", rollout.prompts)),
        Change("update.micro_batch", share("update.micro_batch", config.update.micro_batch)),
    ]
    if own:
        changes.append(Change("update.mesh", f"{chips // own_tensor}x{own_tensor}"))
    if rollout.slots is not None:
        changes.append(Change("rollout.slots", share("rollout.slots", rollout.slots)))
    return apply(config, tuple(changes))


def topology_for(name: str, chips: int) -> str:
    """A topology of the same generation with so many chips."""
    generation = name.split(":")[0]
    shapes = SHAPES.get(generation)
    return f"{generation}:{shapes[CHIPS.index(chips)] if shapes else chips}"


def scale(flags: PlanFlags, config: Config, model: ModelConfig, base: Devices) -> list[Size]:
    """Compile or estimate the step for each number of chips; times for the longest mean length."""
    found = []
    for chips in CHIPS:
        here = grown(config, base, chips)
        devices = devices_for(topology_for(base.topology, chips), here.mesh, flags)
        step = planned_step(here, model, devices, flags.prompt_tokens)
        costs = measure_all(planned_programs(step), step, measure_for(devices))
        expected = expect(
            step,
            here,
            costs,
            devices.chip,
            mean_lengths(flags, config)[-1],
            effective=flags.effective,
            questions=flags.questions,
        )
        phases = memory_of(step, costs, devices.chip)
        refused = tuple(program.name for program, cost in costs.items() if cost.refused)
        found.append(Size(devices, here, phases, expected, refused))
    return found


def efficiency(sizes: list[Size]) -> list[float]:
    """Tokens per second and chip, over those of the smallest."""
    rates = [s.expected.generated_per_second / s.devices.mesh.size for s in sizes]
    return [rate / rates[0] for rate in rates]


def scaling_table(sizes: list[Size]) -> str:
    """Per chip and step."""
    rows = []
    for size, share in zip(sizes, efficiency(sizes), strict=True):
        expected = size.expected
        total = max(size.phases.values(), key=lambda there: there.total)
        mark = "*" if size.refused else ""
        rows.append(
            [
                size.devices.topology,
                size.devices.name,
                str(size.config.rollout.prompts),
                tables.scaled(sum(work.flops for work in expected.work.values())) + mark,
                tables.gib(total.total) + mark,
                "yes" if size.fits else "NO",
                tables.moved(expected.collectives) + mark,
                tables.duration(expected.step) + mark,
                tables.duration(expected.hidden) + mark,
                f"{expected.generated_per_second:,.0f}{mark}",
                f"{share:.0%}{mark}",
            ]
        )
    header = ["topology", "mesh", "prompts", "FLOPs", "GiB", "fits", "collectives", "step"]
    text = tables.table([*header, "step, hidden", "tokens/s", "efficiency"], rows)
    notes = [
        f"\\* {size.devices.topology}: the compiler refuses {', '.join(size.refused)}; "
        "their work is estimated from shapes."
        for size in sizes
        if size.refused
    ]
    return "\n".join([text, *([""] if notes else []), *notes])


def scaling_text(sizes: list[Size], config: Config) -> str:
    """The table, and how to read it."""
    longest = sizes[0].expected
    return "\n".join(
        [
            f"{config.model}: the same work for each chip, responses of {longest.mean} tokens on "
            "average; a step, per chip.",
            "",
            scaling_table(sizes),
            "",
            "Efficiency: tokens per second and chip, over the first row's. Collectives: bytes that "
            "they give a chip in a step.",
            *ASSUMPTIONS,
        ]
    )


def as_json(sizes: list[Size]) -> dict[str, Any]:
    """For programs; bytes and FLOPs are those of one chip."""
    rows = [
        {
            "topology": size.devices.topology,
            "mesh": size.devices.name,
            "chips": size.devices.mesh.size,
            "prompts": size.config.rollout.prompts,
            "flops": sum(work.flops for work in size.expected.work.values()),
            "bytes": sum(work.traffic for work in size.expected.work.values()),
            "sent_bytes": sum(work.comm_bytes for work in size.expected.work.values()),
            "collective_bytes": size.expected.collectives,
            "hbm_bytes": max(there.total for there in size.phases.values()),
            "fits": size.fits,
            "refused": list(size.refused),
            "step_seconds_estimate": size.expected.step,
            "step_seconds_if_communication_is_hidden": size.expected.hidden,
            "generated_tokens_per_second": size.expected.generated_per_second,
            "efficiency": share,
        }
        for size, share in zip(sizes, efficiency(sizes), strict=True)
    ]
    return {"fits": all(size.fits for size in sizes), "scaling": rows}
