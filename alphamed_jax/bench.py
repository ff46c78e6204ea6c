"""`python -m alphamed_jax.bench`: time a GRPO step on random weights of a given shape.

    python -m alphamed_jax.bench                          SmolLM2-135M, 2 prompts x 4, 64 + 64
    python -m alphamed_jax.bench --shape small --workload realistic --prompts 32 --generations 8
    python -m alphamed_jax.bench --shape llama-3.1-8b --compile-only v5e:8x8 --mesh 8x8
    python -m alphamed_jax.bench --lora.rank 16           adapters instead of all weights

Progress goes to stderr; the last line of stdout is one JSON object. Times are seconds, medians over
the steps counted. `floor` holds the machine's own rates, measured in this process, and `share`
how much of them each phase reached: the least seconds the work of the phase can take, over what it
took. `rest` is reward, advantages and update. `steps_that_compiled` counts all steps, those before
counting begins included; `counted_steps_that_compiled` should be 0, else raise --warmup.
`device_mb_peak` is the most memory of a device in use at once, null where it keeps no count.
"""

import dataclasses
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphamed_jax import cli
from alphamed_jax.benchmark import work
from alphamed_jax.benchmark.machine import (
    Clock,
    Rates,
    device_peak_mb,
    measure_rates,
    peak_memory_mb,
)
from alphamed_jax.benchmark.setup import BenchConfig, compute_dtype, make_batch, make_policy
from alphamed_jax.benchmark.timing import Timed, time_savings, timed_step
from alphamed_jax.config_io import flags_of, user_path
from alphamed_jax.model import lora
from alphamed_jax.model.attention import choose_attention
from alphamed_jax.model.mesh import check_heads, make_mesh, parse_mesh
from alphamed_jax.model.network import count_parameters
from alphamed_jax.programs import PROGRAMS
from alphamed_jax.programs.compile_only import compile_only
from alphamed_jax.programs.planned import StepShape
from alphamed_jax.rl.batch import check_micro_batch
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.policy import Policy
from alphamed_jax.rl.slots import fewer_slots
from alphamed_jax.rl.update import TrainState
from alphamed_jax.runtime import distributed, platforms
from alphamed_jax.runtime.streams import say


def bench(config: BenchConfig) -> dict[str, Any]:
    """Run the workload and return what is printed."""
    mesh = make_mesh(config.mesh)
    check_micro_batch(config.train.update.micro_batch, mesh)
    check_heads(config.model.num_heads, config.model.num_kv_heads, mesh)
    policy, state = make_policy(config, mesh)
    parameters = count_parameters(config.model)
    say(f"{parameters / 1e6:.1f} M parameters, {config.dtype}, mesh {config.mesh}")
    with jax.set_mesh(mesh):
        result, times = measured(config, policy, state)
    rates = measure_rates(compute_dtype(config))
    result["floor"] = rates._asdict()
    result["share"] = shares(config, times, rates)
    return result


def measured(
    config: BenchConfig, policy: Policy, state: TrainState
) -> tuple[dict[str, Any], list[Timed]]:
    """Times and memory of the steps, and of what each saving saves."""
    train = config.train
    times: list[Timed] = []
    clock = Clock()
    for step in range(config.warmup + config.steps):
        if step == config.warmup:
            clock = Clock()
        state, timed = timed_step(policy, train, state, make_batch(config, step), step)
        times.append(timed)
        compiled_now = f", {timed.programs} programs compiled" if timed.programs else ""
        say(f"step {step}: rollout {timed.rollout:.2f} s, rest {timed.rest:.2f} s{compiled_now}")
    other = clock.other_share()
    peaks = {"rss_mb_peak": peak_memory_mb(), "device_mb_peak": device_peak_mb()}
    if config.profile:
        batch = make_batch(config, len(times))
        with jax.profiler.trace(config.profile, create_perfetto_trace=True):
            state, _ = timed_step(policy, train, state, batch, len(times))
        say(f"trace of one more step in {config.profile}")
    result = summary(config, times) | {"other_cpu_fraction": other} | peaks
    if config.workload == "realistic":
        say("savings, on and off")
        first = len(times) + 1
        batches = [make_batch(config, first + i) for i in range(config.steps)]
        state, result["savings"] = time_savings(policy, train, state, batches)
    return result, times


def compiled(config: BenchConfig, topology: str) -> dict[str, Any]:
    """Compile the programs for a TPU topology and hold them against what the model needs."""
    work = config.work
    replica, fsdp, _ = parse_mesh(config.mesh, 1)
    shape = StepShape(
        prompts=work.prompts,
        group=work.generations,
        prompt_width=bucket(work.prompt_len),
        response=work.completion_len,
        slots=fewer_slots(work.prompts, work.generations, config.slots, replica * fsdp),
        micro_batch=config.micro_batch or 64,
        int8_weights=config.weights_dtype == "int8",
        int8_cache=config.cache_dtype == "int8",
    )
    dtype = jnp.dtype("bfloat16")
    attention = choose_attention(config.attention, "tpu", dtype, config.model.head_dim)
    found = compile_only(
        topology,
        config.mesh,
        config.model,
        shape,
        programs=[program for program in PROGRAMS if program.bars],
        compute=Compute(dtype, "layer", attention=attention),
        adapters=config.lora,
    )
    for name, bar in found["bars"].items():
        ratio = f"{bar['ratio']:.3f} x needed" if "ratio" in bar else f"{bar['measured']}"
        say(f"{name}: {ratio}, bar {bar['bar']}: {'kept' if bar['kept'] else 'NOT KEPT'}")
    return found


def summary(config: BenchConfig, times: list[Timed]) -> dict[str, Any]:
    """Medians, and rates of tokens as other trainers count them."""
    counted = times[config.warmup :]
    median = statistics.median
    step, rollout = median(t.step for t in counted), median(t.rollout for t in counted)
    rest = median(t.rest for t in counted)
    batches = [make_batch(config, config.warmup + i) for i in range(config.steps)]
    generated = median(int(b.limits.sum()) for b in batches)
    group = config.work.generations
    whole = median(
        int(b.limits.sum() + group * sum(len(q.token_ids) for q in b.questions)) for b in batches
    )
    device = jax.devices()[0]
    return {
        "system": "alphamed_jax",
        "jax": jax.__version__,
        "device": device.device_kind,
        "config": dataclasses.asdict(config),
        "params": count_parameters(config.model),
        "adapter_params": lora.count_parameters(config.model, config.lora),
        "sequences_per_step": config.work.responses,
        "step_s_median": step,
        "gen_s_median": rollout,
        "train_s_median": rest,
        "gen_tokens_per_s": generated / rollout,
        "train_tokens_per_s": whole / rest,
        "step_tokens_per_s": generated / step,
        "first_step_s": times[0].step,
        "steps_that_compiled": sum(t.programs > 0 for t in times),
        "counted_steps_that_compiled": sum(t.programs > 0 for t in counted),
        "steps_s": [t.step for t in counted],
        "gens_s": [t.rollout for t in counted],
    }


def shares(config: BenchConfig, times: list[Timed], rates: Rates) -> dict[str, Any]:
    """Least seconds of each phase at the machine's own rates, over the seconds it took.

    A rollout must compute its products and read weights and caches; whichever takes longer,
    prefill and decoding apart. The rest must compute its products and pass over the optimiser's
    arrays.
    """
    itemsize = compute_dtype(config).itemsize
    reached: dict[str, list[float]] = {"rollout": [], "rest": []}
    least: dict[str, list[float]] = {"rollout": [], "rest": []}
    for i, timed in enumerate(times[config.warmup :]):
        batch = make_batch(config, config.warmup + i)
        prompts = np.array([len(q.token_ids) for q in batch.questions])
        lengths = batch.limits.reshape(-1, config.work.generations)
        rewards = batch.rewards.reshape(-1, config.work.generations)
        trained = rewards.max(axis=1) != rewards.min(axis=1)
        model = config.model
        reading = work.decode_bytes(
            *(model, prompts, lengths, timed.occupancy.steps, itemsize),
            int8_weights=config.weights_dtype == "int8",
            int8_cache=config.cache_dtype == "int8",
        )
        decoding = max(
            work.decode_flops(model, prompts, lengths) / rates.product_flops_per_s,
            reading / rates.copy_bytes_per_s,
        )
        prefilling = work.prefill_flops(model, prompts) / rates.product_flops_per_s
        flops = work.update_flops(model, prompts, lengths, trained, config.lora)
        products = flops / rates.product_flops_per_s
        applying = work.optimizer_bytes(model, config.lora) / rates.copy_bytes_per_s
        least["rollout"].append(prefilling + decoding)
        least["rest"].append(products + applying)
        reached["rollout"].append((prefilling + decoding) / timed.rollout)
        reached["rest"].append((products + applying) / timed.rest)
    median = statistics.median
    return {
        "rollout": median(reached["rollout"]),
        "rest": median(reached["rest"]),
        "rollout_floor_s": median(least["rollout"]),
        "rest_floor_s": median(least["rest"]),
        "decode_step_s": median(
            t.rollout / max(t.occupancy.steps, 1) for t in times[config.warmup :]
        ),
    }


def start(config: BenchConfig) -> None:
    """Time, or compile, and print."""
    began = time.perf_counter()
    if config.profile:
        profile = user_path(config.profile, "profile")
        config = dataclasses.replace(config, profile=profile)
    if config.compile_only:
        platforms.prepare("cpu")
        result = compiled(config, config.compile_only)
    else:
        with distributed.start(int(np.prod(parse_mesh(config.mesh, 1)))):
            result = bench(config)
    say(f"{time.perf_counter() - began:.0f} s in all")
    print(json.dumps(result))


def main() -> None:
    cli.run("bench", start, flags_of(BenchConfig()), __doc__)


if __name__ == "__main__":
    main()
