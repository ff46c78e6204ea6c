"""A plan: everything that is measured for a configuration, as text and as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from alphamed_jax.compiled.topology import GIB, Chip
from alphamed_jax.config import Config
from alphamed_jax.model import lora
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import mesh_name
from alphamed_jax.model.network import count_parameters
from alphamed_jax.planning import tables
from alphamed_jax.planning.cost import Cost
from alphamed_jax.planning.devices import Devices, devices_for
from alphamed_jax.planning.expected import ASSUMPTIONS, Expected, expect
from alphamed_jax.planning.fit import RESERVE, PhaseMemory, failing, memory_of
from alphamed_jax.planning.flags import PlanFlags, mean_lengths
from alphamed_jax.planning.measure import Measure, measure_all, measure_for
from alphamed_jax.planning.pool import pool_share
from alphamed_jax.planning.savings import Saving, savings, savings_text
from alphamed_jax.planning.step import planned_step
from alphamed_jax.planning.suggest import PRICES, Suggestion, search
from alphamed_jax.programs import PROGRAMS, planned_programs
from alphamed_jax.programs.estimate import offloaded
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import Program, parts


class Plan(NamedTuple):
    """What was found for a configuration on some devices."""

    config: Config
    devices: Devices
    step: PlannedStep
    costs: dict[Program, Cost]
    phases: dict[str, PhaseMemory]
    expected: list[Expected]
    suggestion: Suggestion | None
    """Sought only where it does not fit."""
    savings: list[Saving]
    """Of the settings of memory that are not at their defaults."""

    @property
    def fits(self) -> bool:
        """Whether every phase fits, and the copy for a checkpoint."""
        return not failing(self.phases)

    @property
    def largest(self) -> int:
        """Bytes per chip of the phase that needs most."""
        return max(there.total for there in self.phases.values())


def make_plan(
    flags: PlanFlags,
    config: Config,
    model: ModelConfig,
    devices: Devices,
    measure: Measure | None = None,
    programs: Sequence[Program] = PROGRAMS,
) -> Plan:
    """Measure all programs of a step, and look for settings that fit where these do not.

    Args:
      measure: how a program is measured; None: compiled for TPUs, estimated for others.
      programs: those that there are.
    """
    measure = measure or measure_for(devices)

    def make_step(changed: Config) -> PlannedStep:
        here = devices
        if changed.mesh != config.mesh:
            here = devices_for(devices.topology, changed.mesh, flags)
        return planned_step(changed, model, here, flags.prompt_tokens)

    step = make_step(config)
    costs = measure_all(planned_programs(step, programs), step, measure)
    phases = memory_of(step, costs, devices.chip)
    expected = [
        expect(
            step,
            config,
            costs,
            devices.chip,
            mean,
            effective=flags.effective,
            questions=flags.questions,
        )
        for mean in mean_lengths(flags, config)
    ]
    suggestion = None
    if failing(phases) and flags.search:
        suggestion = search(config, make_step, costs, measure, devices.chip, programs=programs)
    saved = savings(config, make_step)
    return Plan(config, devices, step, costs, phases, expected, suggestion, saved)


def _peaks(chip: Chip) -> str:
    return (
        f"Peak figures per chip: {chip.flops / 1e12:.4g} TFLOP/s in bf16, {chip.memory / GIB:.4g} "
        f"GiB of memory for programs, {chip.bandwidth / 1e9:.5g} GB/s of memory, "
        f"{chip.links / 1e9:.4g} GB/s of links along an axis (--peak-flops --hbm-gb --hbm-gbps "
        "--ici-gbps)."
    )


def _workload(plan: Plan) -> str:
    shape, config = plan.step.shape, plan.config
    slots = "all at once" if shape.slots is None else f"{shape.slots} at once"
    return (
        f"{config.rollout.prompts} prompts of up to {shape.prompt_width} tokens x {shape.group} "
        f"responses of up to {shape.response}, {slots}; micro-batches of {shape.micro_batch}, "
        f"remat {config.update.remat}, {plan.step.objective.compute.dtype}."
    )


def _learns(plan: Plan) -> list[str]:
    """What learns, where it is not everything."""
    model, adapters = plan.step.model, plan.step.lora
    if not adapters.rank:
        return []
    return [
        f"Adapters of rank {adapters.rank} on {', '.join(lora.targets(model, adapters))}: "
        f"{lora.count_parameters(model, adapters) / 1e6:.3g} M parameters learn, the model is "
        f"frozen in {plan.step.objective.compute.dtype}."
    ]


def _own_mesh(plan: Plan) -> str:
    """The mesh of the update, where it has one."""
    other = plan.step.other_mesh
    return "" if other is None else f", update {mesh_name(other)}"


def _resharded(plan: Plan) -> list[str]:
    """What two meshes cost."""
    if plan.step.other_mesh is None:
        return []
    size = tables.gib(parts(plan.step.params_copy)["weights"])
    dtype = plan.step.objective.compute.dtype
    return [
        f"update.mesh {mesh_name(plan.step.update_mesh)}: a copy of the weights is sent to the "
        f"rollout once a step (reshard), {size} GiB per chip in {dtype}."
    ]


def _overlaps(plan: Plan) -> list[str]:
    """How much of what travels the compiler sends while it computes, as a paragraph."""
    lines = [
        f"{program.name}: of {tables.scaled(cost.work.comm_bytes, 'B')} on the links "
        f"{tables.scaled(cost.overlapped, 'B')} are sent while other work is done, as compiled."
        for program, cost in plan.costs.items()
        if cost.overlapped
    ]
    return [*lines, ""] if lines else []


def _offloads(plan: Plan) -> list[str]:
    """What a micro-batch keeps at the host."""
    size = offloaded(plan.step)
    if not size:
        return []
    return [
        f"update.remat offload: a micro-batch sends {tables.gib(size)} GiB per chip to the host "
        "and takes them back; the time of that is not counted."
    ]


def _suggested(plan: Plan) -> list[str]:
    """What would make it fit, or what comes closest."""
    found = plan.suggestion
    if found is None:
        return ["Does not fit, and no smaller setting was worth compiling: take more chips."]
    kind = "compiled" if plan.devices.compiled else "estimated"
    if found.fits:
        lines = [f"Does not fit. It does with (verified: {found.compiles} programs {kind}):", ""]
    else:
        lines = [
            f"Does not fit, nor did what was tried ({found.compiles} programs {kind}). Closest, "
            f"with {tables.gib(found.worst)} GiB:",
            "",
        ]
    return [*lines, f"    {found.flags}", "", *_prices(found)]


def _prices(found: Suggestion) -> list[str]:
    return [f"- {change.flag}: {PRICES[change.name]}" for change in found.changes]


def as_text(plan: Plan) -> str:
    """For reading."""
    chip, devices = plan.devices.chip, plan.devices
    parameters = count_parameters(plan.step.model)
    estimated = not devices.compiled
    title = (
        f"{plan.config.model}: {parameters / 1e9:.3g} G parameters on {devices.topology} "
        f"({devices.mesh.size} chips), mesh {devices.name}{_own_mesh(plan)} (fsdp x tensor)"
    )
    star = "\\* estimated from shapes, not compiled."
    note = [star] if any(cost.estimated for cost in plan.costs.values()) else []
    used = max(plan.phases, key=lambda name: plan.phases[name].total)
    verdict = (
        f"{'Fits' if plan.fits else 'DOES NOT FIT'}: {used} needs {tables.gib(plan.largest)} of "
        f"{tables.gib(chip.memory)} GiB; {RESERVE:.0%} are kept free."
    )
    lines = [
        title,
        _workload(plan),
        *_learns(plan),
        *_resharded(plan),
        *(["All figures are estimates from shapes: nothing was compiled."] if estimated else []),
        "",
        tables.memory_table(plan.phases, plan.costs, chip.memory),
        "",
        *note,
        verdict,
        *([devices.pool] if devices.pool else []),
        *savings_text(plan.savings),
        *_offloads(plan),
        *(f"{name}: {there.refused}" for name, there in plan.phases.items() if there.refused),
        "",
        tables.phase_table(plan.costs, chip),
        "",
        *_overlaps(plan),
        _peaks(chip),
        "",
        tables.expected_table(plan.expected),
        "",
        *ASSUMPTIONS,
    ]
    if not plan.fits:
        lines += ["", *_suggested(plan)]
    return "\n".join(lines)


def as_json(plan: Plan) -> dict[str, Any]:
    """For programs. Bytes, FLOPs and seconds are those of one chip; `fits` counts the reserve."""
    chip = plan.devices.chip
    longest = plan.expected[-1]
    phases: dict[str, dict[str, Any]] = {}
    for name, there in plan.phases.items():
        phases[name] = {
            "memory": {**there.parts} | {"temporaries": there.temporaries},
            "hbm_bytes": there.total,
            "fits": there.fits,
            "refused": there.refused or None,
        }
    for program, cost in plan.costs.items():
        phases[program.name] |= {
            "estimated": cost.estimated,
            "compile_seconds": round(cost.seconds, 1),
            "flops": cost.work.flops,
            "bytes": cost.work.traffic,
            "sent_bytes": cost.work.comm_bytes,
            "sent_while_computing_bytes": cost.overlapped,
            "collective_bytes": cost.moved,
            "seconds_in_step": longest.phases[program.name].serial,
        }
    found = plan.suggestion
    return {
        "fits": plan.fits,
        "hbm_bytes": plan.largest,
        "hbm_capacity_bytes": int(chip.memory),
        "hbm_share": pool_share() if plan.devices.pool else 1.0,
        "reserve": RESERVE,
        "step_seconds_estimate": longest.step,
        "phases": phases,
        "estimated": not plan.devices.compiled,
        "model": plan.config.model,
        "parameters": count_parameters(plan.step.model),
        "adapter_parameters": lora.count_parameters(plan.step.model, plan.step.lora),
        "topology": plan.devices.topology,
        "mesh": plan.devices.name,
        "update_mesh": mesh_name(plan.step.update_mesh),
        "chips": plan.devices.mesh.size,
        "workload": plan.step.shape._asdict(),
        "peaks": {
            "flops": chip.flops,
            "hbm_bytes": chip.memory,
            "hbm_bytes_per_second": chip.bandwidth,
            "link_bytes_per_second": chip.links,
        },
        "expected": [
            {
                "mean_tokens": e.mean,
                "longest_tokens": e.longest,
                "decode_steps": e.decode_steps,
                "micro_batches": e.micro_batches,
                "step_seconds": e.step,
                "step_seconds_if_communication_is_hidden": e.hidden,
                "generated_tokens_per_second": e.generated_per_second,
                "epoch_seconds": e.epoch,
                "phase_seconds": {name: s.serial for name, s in e.phases.items()},
            }
            for e in plan.expected
        ],
        "assumptions": list(ASSUMPTIONS),
        "offloaded_bytes": offloaded(plan.step),
        "savings": {
            saving.setting: saving.kinds | ({"decode_read": saving.read} if saving.read else {})
            for saving in plan.savings
        },
        "suggestion": found
        and {
            "flags": found.flags,
            "fits": found.fits,
            "hbm_bytes": found.worst,
            "compiles": found.compiles,
            "prices": {change.flag: PRICES[change.name] for change in found.changes},
        },
    }
