"""From a configuration to the sizes of its programs, and which programs a step of it runs."""

from alphamed_jax.compiled.arguments import Case, Workload, slots_of
from alphamed_jax.config import Config
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import check_heads, data_shards
from alphamed_jax.planning.devices import Devices
from alphamed_jax.rl.batch import check_micro_batch
from alphamed_jax.rl.buckets import FIRST_CAPACITY, bucket
from alphamed_jax.rl.policy import make_compute, make_objective, make_sampling


def case_for(
    config: Config, model: ModelConfig, devices: Devices, prompt_tokens: int | None = None
) -> Case:
    """The largest programs that a step of this configuration may run.

    All responses as long as they may be, every group with a signal, lanes that hold several
    responses (as nearly every batch has), prompts as long as `prompt_tokens` or else the longest
    that are kept, and padded as in training.

    Raises:
      UserError: the mesh cuts heads, or has more data rows than a micro-batch has sequences.
    """
    rollout, rows = config.rollout, data_shards(devices.mesh)
    check_heads(model.num_heads, model.num_kv_heads, devices.mesh)
    check_micro_batch(config.update.micro_batch, devices.mesh)
    prompts = -(-rollout.prompts // rows) * rows
    work = Workload(
        prompts=prompts,
        group=rollout.group_size,
        prompt_width=bucket(prompt_tokens or config.prompt.max_tokens),
        response=rollout.max_new_tokens,
        slots=rollout.slots,
        micro_batch=config.update.micro_batch,
        packed=True,
        mini_batches=config.update.mini_batches,
        old_logprobs=config.updates_per_step > 1,
        sharded=rollout.weights == "sharded",
    )
    compute = make_compute(config, model, devices.platform)
    objective = make_objective(config, model, make_sampling(config), compute)
    case = Case(model, devices.mesh, work, objective)
    if slots_of(case) >= prompts * rollout.group_size:
        case = case._replace(work=work._replace(slots=None))
    return case


def phases_of(case: Case) -> tuple[str, ...]:
    """The programs that a step of a case runs, in order; see `programs.PHASES`."""
    work = case.work
    used = {"layer_layout", "head_layout", "prefill", "refill", "decode", "reward", "update"}
    if work.slots is not None:
        used.add("fan_out")
    if work.response >= 2 * FIRST_CAPACITY:
        used.add("grow")
    if work.old_logprobs or case.objective.loss.kl_coef > 0:
        used.add("score")
    order = ("layer_layout", "head_layout", "prefill", "refill", "fan_out", "decode", "grow")
    return tuple(p for p in (*order, "reward", "score", "update") if p in used)
