"""The programs of training, compiled from shapes alone, and what they cost on each device.

These are the jitted functions that `train` calls, lowered for arguments without any data, with
the shardings that training gives them; the machine needs neither the TPU nor the memory.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alphamed_jax.compiled import closed_form, collectives, costs, hlo, memory, topology
from alphamed_jax.compiled.arguments import Case, Workload, batch_of, lowerings, slots_of
from alphamed_jax.config import LossConfig, OptimizerConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model import network
from alphamed_jax.model.attention import Attention
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import check_heads, data_shards
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.update import Objective

PHASES = ("layer_layout", "head_layout", "prefill", "fan_out", "refill", "decode", "grow")
PHASES += ("reward", "score", "update")
DECODE_BAR, UPDATE_BAR = 1.3, 1.4


class Phase(NamedTuple):
    """What one program costs on one device. A loop of unknown length counts as one turn.

    Such are the decode loop and that over micro-batches; `turn_..` is what each further turn adds.
    """

    flops: int
    """Of matrix products, counted in the optimised HLO."""
    traffic: int
    """Bytes of HBM read and written."""
    sent: int
    """Bytes sent to other devices (`collectives.Collective.sent`)."""
    turn_flops: int
    turn_traffic: int
    turn_sent: int
    turn_collectives: dict[str, int]
    step_traffic: int | None
    """The same of one turn of the decode loop."""
    cache_copies: tuple[str, ...]
    """Instructions of the decode loop that write as much as one layer's keys."""
    logit_rows: int
    """Most rows of logits in an array outside of fusions."""
    collectives: dict[str, dict[str, int]]
    """Bytes that collectives give: kind -> element type -> bytes."""
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
    """As `cost_analysis` says: each loop counts as one turn, vector operations are included."""
    xla_bytes: float
    """As `cost_analysis` says: each loop counts as one turn, and VMEM is counted like HBM."""


def measure(case: Case, name: str, lower: Callable[[], jax.stages.Lowered]) -> Phase | str:
    """Compile one phase, and read its program; if it does not fit, what the compiler says."""
    started = time.perf_counter()
    assert isinstance(case.mesh, Mesh), "programs are compiled for devices"
    with jax.set_mesh(case.mesh):
        lowered = lower()
    between = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        # The compiler refuses a program that no device of this kind can hold.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
    ended = time.perf_counter()
    text, sizes = compiled.as_text() or "", compiled.memory_analysis()
    assert sizes is not None, "TPU programs tell their memory"
    by_xla: Any = compiled.cost_analysis() or {}
    program = hlo.parse(text)
    flops = [costs.matmul_flops(text, turns) for turns in (1, 2)]
    traffic = [costs.computation_traffic(program, program.entry, turns).total for turns in (1, 2)]
    sent = [collectives.sent_bytes(text, turns) for turns in (1, 2)]
    moved = [collectives.collective_bytes(text, turns) for turns in (1, 2)]
    once, twice = ({kind: sum(x.values()) for kind, x in turns.items()} for turns in moved)
    step = copies = None
    model, work, tensor = case.model, case.work, case.mesh.shape["tensor"]
    if name == "decode":
        step = costs.bytes_per_step(text)
        slots = slots_of(case) // data_shards(case.mesh)
        caches = closed_form.cache_bytes(model, slots, work.capacity or work.response, tensor)
        copies = costs.large_writes(text, caches // (2 * model.num_layers))
    vocabulary = model.vocab_size // closed_form.shards(model, "vocab", tensor)
    return Phase(
        flops=flops[0],
        traffic=traffic[0],
        sent=sent[0],
        turn_flops=flops[1] - flops[0],
        turn_traffic=traffic[1] - traffic[0],
        turn_sent=sent[1] - sent[0],
        turn_collectives={kind: twice[kind] - size for kind, size in once.items()},
        step_traffic=step,
        cache_copies=tuple(copies or ()),
        logit_rows=hlo.most_rows(text, vocabulary, but=model.hidden_size),
        collectives=moved[0],
        arguments=sizes.argument_size_in_bytes,
        results=sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        temporaries=sizes.temp_size_in_bytes,
        peak=sizes.peak_memory_in_bytes,
        lower_seconds=round(between - started, 1),
        compile_seconds=round(ended - between, 1),
        xla_flops=by_xla.get("flops", 0.0),
        xla_bytes=by_xla.get("bytes accessed", 0.0),
    )


def closed_form_of(case: Case) -> dict[str, int]:
    """What the model itself needs per device, beside which the phases are held."""
    model, work, mesh = case.model, case.work, case.mesh
    tensor, rows = mesh.shape["tensor"], data_shards(mesh)
    slots = slots_of(case) // rows
    caches = work.prompts // rows if work.slots is None else slots
    micros = batch_of(case).lengths.shape[0]
    flops = closed_form.update_flops(model, work.prompts, work.prompt_width, work.responses())
    return {
        "weight_bytes": closed_form.decode_weight_bytes(model, tensor),
        "cache_bytes": closed_form.cache_bytes(model, slots, work.capacity or work.response, tensor)
        + closed_form.cache_bytes(model, caches, work.prompt_width, tensor),
        "update_flops": flops // mesh.size // micros,
        "prefill_flops": closed_form.forward_flops(
            model,
            work.prompts * work.prompt_width,
            0,
            work.prompts * closed_form.causal_pairs(work.prompt_width, []),
        )
        // mesh.size,
        "parameters": network.count_parameters(model),
        "micro_batches": micros,
    }


def bars(floor: dict[str, int], phases: dict[str, Phase]) -> dict[str, dict[str, Any]]:
    """Measured against needed, as the ratio, its bar, and whether it is kept."""
    found: dict[str, dict[str, Any]] = {}

    def compare(name, measured, needed, bar):
        ratio = measured / needed
        found[name] = {
            "measured": measured,
            "floor": needed,
            "ratio": round(ratio, 3),
            "bar": bar,
            "kept": ratio <= bar,
        }

    if "decode" in phases:
        step = phases["decode"].step_traffic
        compare("decode_bytes", step, floor["weight_bytes"] + floor["cache_bytes"], DECODE_BAR)
        copies = phases["decode"].cache_copies
        found["cache_copies"] = {"measured": len(copies), "bar": 0, "kept": not copies}
    if "update" in phases:
        compare("update_flops", phases["update"].flops, floor["update_flops"], UPDATE_BAR)
    for name in {"update", "score"} & phases.keys():
        rows, bar = phases[name].logit_rows, floor["logits_chunk"]
        found[f"{name}_logit_rows"] = {"measured": rows, "bar": bar, "kept": rows <= bar}
    return found


def case_of(
    topology_name: str,
    mesh: str,
    model: ModelConfig,
    work: Workload,
    compute: Compute,
    sampling: Sampling,
) -> Case:
    """The case on a named topology.

    Raises:
      UserError: see `topology.mesh_for`; or the mesh does not fit the model or the sizes.
    """
    devices = topology.mesh_for(topology_name, mesh)
    check_heads(model.num_heads, model.num_kv_heads, devices)
    rows = data_shards(devices)
    if work.prompts % rows or work.micro_batch < rows:
        raise UserError(
            f"--mesh {mesh} has {rows} data rows: the prompts ({work.prompts}) must be a multiple "
            f"of that, and a micro-batch ({work.micro_batch}) no smaller."
        )
    objective = Objective(model, sampling, compute, LossConfig(), OptimizerConfig(), 0)
    return Case(model, devices, work, objective)


def compile_only(
    topology_name: str,
    mesh: str,
    model: ModelConfig,
    work: Workload | None = None,
    *,
    phases: Sequence[str] = PHASES,
    compute: Compute | None = None,
    sampling: Sampling | None = None,
    chip: topology.Chip | None = None,
) -> dict[str, Any]:
    """Compile training's programs for a TPU topology, and hold them against the model's needs.

    Args:
      topology_name: as v5e:8x8.
      mesh: as `--mesh`; its product is the number of the topology's chips.
      compute: bfloat16, remat of each layer and splash, as training on TPUs, where not given.
      chip: peak figures, where the built-in ones do not hold.

    Returns:
      For JSON: "phases" (see `Phase`), "model" (closed form, per device and micro-batch), "bars",
      "memory" (with what lies beside a program's arguments), "refused" (phases that the compiler
      finds no room for) and "fits"; all bytes and FLOPs are of one device. Progress goes to stderr.

    Raises:
      UserError: see `case_of`, or an unknown phase.
    """
    unknown = set(phases) - set(PHASES)
    if unknown:
        raise UserError(f"unknown phase {min(unknown)!r}; there are {', '.join(PHASES)}.")
    work = work or Workload()
    compute = compute or Compute(jnp.dtype("bfloat16"), "layer", attention=Attention("splash"))
    case = case_of(topology_name, mesh, model, work, compute, sampling or Sampling())
    chip = chip or topology.chip(topology_name)
    lower = lowerings(case)
    found: dict[str, Phase] = {}
    refused: dict[str, str] = {}
    for name in phases:
        print(f"{topology_name} {mesh}: {name} ...", end="", file=sys.stderr, flush=True)
        phase = measure(case, name, lower[name])
        if isinstance(phase, str):
            refused[name], said = phase, f"does not fit: {phase}"
        else:
            found[name], said = phase, f"compiled in {phase.compile_seconds} s"
        print(f" {said}", file=sys.stderr, flush=True)
    floor = closed_form_of(case) | {"logits_chunk": compute.logits_chunk}
    beside = memory.beside(case)
    held = {name: phase.peak + beside[name] for name, phase in found.items()}
    return {
        "topology": topology_name,
        "mesh": mesh,
        "workload": work._asdict(),
        "chip": chip._asdict(),
        "model": floor,
        "phases": {name: phase._asdict() for name, phase in found.items()},
        "bars": bars(floor, found),
        "memory": held,
        "refused": refused,
        "fits": not refused and all(size <= chip.memory for size in held.values()),
        "compiler_rss_mb_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
