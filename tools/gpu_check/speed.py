"""Steps timed by `alphamed_jax.bench`, and their peak of memory beside what a plan says."""

from alphamed_jax import bench
from alphamed_jax.benchmark.setup import BenchConfig
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.result import make_plan
from alphamed_jax.runtime import distributed
from gpu_check.table import Failed, Setting, Skipped
from gpu_check.work import config_of

TOPOLOGY = "h100:1"
"""Of the plan. Of its card only the name counts here, as memory is not compared with the card's."""
MOST_OF_PLAN = 1.1
"""A peak above so much of the plan would not fit where the plan says that it does."""
KEPT = (
    *("step_s_median", "gen_s_median", "train_s_median", "first_step_s", "gen_tokens_per_s"),
    *("train_tokens_per_s", "params", "adapter_params", "device_mb_peak", "other_cpu_fraction"),
)


def _bench(name: str, setting: Setting) -> dict:
    """Times and shares of the machine's rates; fails where a counted step compiled."""
    config = config_of(name, setting.small)
    with distributed.start(1):
        result = bench.bench(config)
    work = config.work
    figures = {
        **{key: result[key] for key in KEPT},
        "workload": f"{work.prompts} x {work.generations}, {work.prompt_len} + "
        f"{work.completion_len} tokens, micro-batch {config.train.update.micro_batch}, "
        f"remat {config.remat}",
        "floor": result["floor"],
        "share": result["share"],
    }
    if count := result["counted_steps_that_compiled"]:
        raise Failed(f"{count} of {config.steps} counted steps compiled something", figures)
    return figures


def bench_135m(setting: Setting) -> dict:
    """All weights of SmolLM2-135M's shape."""
    return _bench("bench-135m", setting)


def bench_1b(setting: Setting) -> dict:
    """All weights of Llama-3.2-1B's shape."""
    return _bench("bench-1b", setting)


def bench_8b(setting: Setting) -> dict:
    """Adapters of rank 16 on Llama-3.1-8B's shape."""
    return _bench("bench-8b-lora", setting)


def planned_mb(config: BenchConfig) -> dict[str, float]:
    """MiB of each phase in a plan of the same work.

    Without the copy for a checkpoint, which `bench` does not make.
    """
    flags = PlanFlags(
        topology=TOPOLOGY, prompt_tokens=config.work.prompt_len, suggest=False, hbm_gb=1024
    )
    devices = devices_for(TOPOLOGY, config.mesh, flags)
    made = make_plan(flags, config.train, config.model, devices)
    return {name: x.total / 2**20 for name, x in made.phases.items() if name != "checkpoint"}


def memory(setting: Setting) -> dict:
    """The peak of each benchmark over what is planned for it."""
    figures, above = {}, []
    for name in ("bench-135m", "bench-1b", "bench-8b-lora"):
        found = setting.earlier.get(name, {})
        if "step_s_median" not in found:
            continue
        phases = planned_mb(config_of(name, setting.small))
        phase, planned = max(phases.items(), key=lambda one: one[1])
        measured = found["device_mb_peak"]
        ratio = None if measured is None else measured / planned
        figures[name] = {
            "measured_mb": measured,
            "planned_mb": planned,
            "planned_phase": phase,
            "measured_of_planned": ratio,
        }
        if ratio is not None and ratio > MOST_OF_PLAN:
            above.append(f"{name} used {ratio:.2f} of what was planned")
    if not figures:
        raise Skipped("no benchmark was run before it; name one beside it in --only")
    if above:
        raise Failed("; ".join(above), figures)
    if not setting.gpu:
        raise Skipped("a CPU keeps no count of its memory; planned only", figures)
    return figures
