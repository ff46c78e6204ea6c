"""The programs of training, compiled from shapes alone, and held against what the model needs.

These are the jitted functions that `train` calls, lowered for arguments without any data, with
the shardings that training gives them; the machine needs neither the TPU nor the memory.
"""

import sys
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from alphamed_jax.compiled import closed_form, topology
from alphamed_jax.config import LoraConfig, LossConfig, OptimizerConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model import network
from alphamed_jax.model.attention import Attention
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import check_heads, data_shards
from alphamed_jax.programs import planned_programs
from alphamed_jax.programs.measure import Compiled, measure
from alphamed_jax.programs.planned import PlannedStep, StepShape
from alphamed_jax.programs.record import Bar, Program, total_bytes
from alphamed_jax.programs.rollout import needed_decode_bytes
from alphamed_jax.programs.update import needed_update_flops
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.update import Objective
from alphamed_jax.runtime.memory import peak_memory


def needs(step: PlannedStep) -> dict[str, int]:
    """What the model itself needs per device, beside which the programs are held."""
    shape = step.shape
    weights, caches = needed_decode_bytes(step)
    pairs = shape.prompts * closed_form.causal_pairs(shape.prompt_width, [])
    tokens = shape.prompts * shape.prompt_width
    return {
        "weight_bytes": weights,
        "cache_bytes": caches,
        "update_flops": needed_update_flops(step),
        "prefill_flops": closed_form.forward_flops(step.model, tokens, 0, pairs) // step.mesh.size,
        "parameters": network.count_parameters(step.model),
        "micro_batches": step.full_plan.prompts.shape[0],
        "logits_chunk": step.objective.compute.logits_chunk,
    }


def step_on(
    topology_name: str,
    mesh: str,
    model: ModelConfig,
    shape: StepShape,
    compute: Compute,
    sampling: Sampling,
    adapters: LoraConfig = LoraConfig(),
) -> PlannedStep:
    """The step on a named topology.

    Raises:
      UserError: see `topology.mesh_for`; or the mesh does not fit the model or the sizes.
    """
    devices = topology.mesh_for(topology_name, mesh)
    check_heads(model.num_heads, model.num_kv_heads, devices)
    shards = data_shards(devices)
    if shape.prompts % shards or shape.micro_batch < shards:
        raise UserError(
            f"--mesh {mesh} has {shards} data shards: the prompts ({shape.prompts}) must be a "
            f"multiple of that, and a micro-batch ({shape.micro_batch}) no smaller."
        )
    objective = Objective(model, sampling, compute, LossConfig(), OptimizerConfig(), 0)
    return PlannedStep(model, devices, shape, objective, adapters)


def compile_only(
    topology_name: str,
    mesh: str,
    model: ModelConfig,
    shape: StepShape | None = None,
    *,
    programs: Sequence[Program] | None = None,
    compute: Compute | None = None,
    sampling: Sampling | None = None,
    chip: topology.Chip | None = None,
    adapters: LoraConfig = LoraConfig(),
) -> dict[str, Any]:
    """Compile training's programs for a TPU topology, and hold them against the model's needs.

    Args:
      topology_name: as v5e:8x8.
      mesh: as `--mesh`; its product is the number of the topology's chips.
      programs: those to compile, where the step runs them; None: all that a plan shows.
      compute: bfloat16, remat of each layer and splash, as training on TPUs, where not given.
      chip: peak figures, where the built-in ones do not hold.
      adapters: what learns; rank 0: all weights.

    Returns:
      For JSON: "phases" (see `Compiled`), "model" (closed form, per device and micro-batch),
      "bars", "memory" (with what else lies on the device), "refused" (programs that the compiler
      finds no room for) and "fits"; all bytes and FLOPs are of one device. Progress goes to stderr.

    Raises:
      UserError: see `step_on`.
    """
    shape = shape or StepShape()
    compute = compute or Compute(jnp.dtype("bfloat16"), "layer", attention=Attention("splash"))
    step = step_on(topology_name, mesh, model, shape, compute, sampling or Sampling(), adapters)
    chip = chip or topology.chip(topology_name)
    found: dict[str, Compiled] = {}
    refused: dict[str, str] = {}
    bars: dict[str, Bar] = {}
    held: dict[str, int] = {}
    for program in planned_programs(step) if programs is None else programs:
        if not program.used(step):
            continue
        name = program.name
        print(f"{topology_name} {mesh}: {name} ...", end="", file=sys.stderr, flush=True)
        result = measure(program, step)
        if isinstance(result, str):
            refused[name], said = result, f"does not fit: {result}"
        else:
            found[name], said = result, f"compiled in {result.compile_seconds} s"
            bars |= program.bars(step, result.report) if program.bars else {}
            held[name] = total_bytes(program, step, result.peak)
        print(f" {said}", file=sys.stderr, flush=True)
    return {
        "topology": topology_name,
        "mesh": mesh,
        "workload": shape._asdict(),
        "chip": chip._asdict(),
        "model": needs(step),
        "phases": {name: result.as_json() for name, result in found.items()},
        "bars": bars,
        "memory": held,
        "refused": refused,
        "fits": not refused and all(size <= chip.memory for size in held.values()),
        "compiler_rss_mb_peak": peak_memory() // 2**20,
    }
