"""From a configuration to the step that is planned: the largest that it may run."""

from alphamed_jax.config import Config
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import check_heads, data_shards
from alphamed_jax.planning.devices import Devices
from alphamed_jax.programs.planned import PlannedStep, StepShape
from alphamed_jax.rl.batch import check_micro_batch
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.policy import (
    make_compute,
    make_objective,
    make_sampling,
    mesh_of_update,
)
from alphamed_jax.rl.slots import fewer_slots


def planned_step(
    config: Config, model: ModelConfig, devices: Devices, prompt_tokens: int | None = None
) -> PlannedStep:
    """The largest step that this configuration may run.

    All responses as long as they may be, every group effective, packed rows of several
    responses (as nearly every batch has), prompts as long as `prompt_tokens` or else the longest
    that are kept, and padded as in training.

    Raises:
      UserError: the mesh cuts heads, or has more data shards than a micro-batch has sequences.
    """
    rollout, shards = config.rollout, data_shards(devices.mesh)
    check_heads(model.num_heads, model.num_kv_heads, devices.mesh)
    mesh = mesh_of_update(config, model, devices.mesh)
    check_micro_batch(config.update.micro_batch, mesh, bool(config.update.mesh))
    prompts = -(-rollout.prompts // shards) * shards
    shape = StepShape(
        prompts=prompts,
        group=rollout.group_size,
        prompt_width=bucket(prompt_tokens or config.prompt.max_tokens),
        response=rollout.max_new_tokens,
        slots=fewer_slots(prompts, rollout.group_size, rollout.slots, shards),
        micro_batch=config.update.micro_batch,
        packed=True,
        mini_batches=config.update.mini_batches,
        old_logprobs=config.updates_per_step > 1,
        sharded=rollout.weights == "sharded",
        int8_weights=rollout.weights_dtype == "int8",
        int8_cache=rollout.cache_dtype == "int8",
        evaluates=rollout.rounded and config.eval.asks,
        epochs=config.update.epochs,
        rounds=rollout.max_rounds,
    )
    compute = make_compute(config, model, devices.platform)
    objective = make_objective(config, model, make_sampling(config), compute)
    other = mesh if mesh != devices.mesh else None
    return PlannedStep(model, devices.mesh, shape, objective, config.lora, other)
