"""A plan: everything that is measured for a configuration, as text and as JSON."""

from typing import Any, NamedTuple

from alphamed_jax.compiled.arguments import Case
from alphamed_jax.compiled.topology import GIB, Chip
from alphamed_jax.config import Config
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.network import count_parameters
from alphamed_jax.planning import tables
from alphamed_jax.planning.case import case_for, phases_of
from alphamed_jax.planning.devices import Devices, devices_for
from alphamed_jax.planning.expected import ASSUMPTIONS, Expected, expect
from alphamed_jax.planning.fit import RESERVE, Held, failing, held
from alphamed_jax.planning.flags import PlanFlags, mean_lengths
from alphamed_jax.planning.measure import Measure, measure_all, measure_for
from alphamed_jax.planning.phase import PhaseCost
from alphamed_jax.planning.pool import pool_share
from alphamed_jax.planning.suggest import PRICES, Suggestion, search


class Plan(NamedTuple):
    """What was found for a configuration on some devices."""

    config: Config
    devices: Devices
    case: Case
    costs: dict[str, PhaseCost]
    phases: dict[str, Held]
    expected: list[Expected]
    suggestion: Suggestion | None
    """Sought only where it does not fit."""

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
) -> Plan:
    """Measure all phases of a step, and look for settings that fit where these do not.

    Args:
      measure: how a phase is measured; None: compiled for TPUs, estimated for others.
    """
    measure = measure or measure_for(devices)

    def make_case(changed: Config) -> Case:
        here = devices
        if changed.mesh != config.mesh:
            here = devices_for(devices.topology, changed.mesh, flags)
        return case_for(changed, model, here, flags.prompt_tokens)

    case = make_case(config)
    costs = measure_all(case, phases_of(case), measure)
    rounds = config.rollout.max_rounds
    phases = held(case, costs, devices.chip, rounds)
    expected = [
        expect(
            case,
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
    if failing(phases) and flags.suggest:
        suggestion = search(config, make_case, costs, measure, devices.chip)
    return Plan(config, devices, case, costs, phases, expected, suggestion)


def _peaks(chip: Chip) -> str:
    return (
        f"Peak figures per chip: {chip.flops / 1e12:.4g} TFLOP/s in bf16, {chip.memory / GIB:.4g} "
        f"GiB of memory for programs, {chip.bandwidth / 1e9:.5g} GB/s of memory, "
        f"{chip.links / 1e9:.4g} GB/s of links along an axis (--peak-flops --hbm-gb --hbm-gbps "
        "--ici-gbps)."
    )


def _workload(plan: Plan) -> str:
    work, config = plan.case.work, plan.config
    slots = "all at once" if work.slots is None else f"{work.slots} at once"
    return (
        f"{config.rollout.prompts} prompts of up to {work.prompt_width} tokens x {work.group} "
        f"responses of up to {work.response}, {slots}; micro-batches of {work.micro_batch}, remat "
        f"{config.update.remat}, {plan.case.objective.compute.dtype}."
    )


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
    parameters = count_parameters(plan.case.model)
    estimated = not devices.compiled
    title = (
        f"{plan.config.model}: {parameters / 1e9:.3g} G parameters on {devices.topology} "
        f"({devices.mesh.size} chips), mesh {devices.name} (fsdp x tensor)"
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
        *(["All figures are estimates from shapes: nothing was compiled."] if estimated else []),
        "",
        tables.memory_table(plan.phases, plan.costs, chip.memory),
        "",
        *note,
        verdict,
        *([devices.pool] if devices.pool else []),
        *(f"{name}: {there.refused}" for name, there in plan.phases.items() if there.refused),
        "",
        tables.phase_table(plan.costs, chip),
        "",
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
            "memory": there.parts | {"temporaries": there.temporaries},
            "hbm_bytes": there.total,
            "fits": there.fits,
            "refused": there.refused or None,
        }
        if name not in plan.costs:
            continue
        cost = plan.costs[name]
        amount = cost.base.plus(cost.turn)
        phases[name] |= {
            "estimated": cost.estimated,
            "compile_seconds": round(cost.seconds, 1),
            "flops": amount.flops,
            "bytes": amount.traffic,
            "sent_bytes": amount.sent,
            "collective_bytes": {
                kind: cost.collectives.get(kind, 0) + cost.turn_collectives.get(kind, 0)
                for kind in cost.collectives | cost.turn_collectives
            },
            "seconds_in_step": longest.phases[name].apart,
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
        "parameters": count_parameters(plan.case.model),
        "topology": plan.devices.topology,
        "mesh": plan.devices.name,
        "chips": plan.devices.mesh.size,
        "workload": plan.case.work._asdict(),
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
                "phase_seconds": {name: s.apart for name, s in e.phases.items()},
            }
            for e in plan.expected
        ],
        "assumptions": list(ASSUMPTIONS),
        "suggestion": found
        and {
            "flags": found.flags,
            "fits": found.fits,
            "hbm_bytes": found.worst,
            "compiles": found.compiles,
            "prices": {change.flag: PRICES[change.name] for change in found.changes},
        },
    }
