"""The policy and the sampler of an evaluation: those of training, without anything to train."""

import dataclasses

import jax
import numpy as np
from jax.experimental import multihost_utils

from alphamed_jax.config import Config, PromptConfig, RolloutConfig, UpdateConfig
from alphamed_jax.evaluation.settings import Settings
from alphamed_jax.evaluation.subject import Subject
from alphamed_jax.model.mesh import data_shards
from alphamed_jax.rl.policy import Policy, make_sampler
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.slots import REFILL_SHARE

MAX_NEW_TOKENS = 2048
"""Where no training run says otherwise. Short limits alone bring models that think to 0 %."""
MAX_PROMPT_TOKENS = 4096
"""More than the longest question of the known benchmarks; what is asked decides the memory."""
CPU_SLOTS, MOST_SLOTS = 32, 256
"""Of each data shard. On two cores a step over 32 rows is bound by arithmetic, so that more of
them end no more responses an hour; beyond 256, accelerators are as well."""
SHARE_OF_MEMORY = 0.5
"""Of what the weights leave free, for the caches of the slots: they are copied as they grow."""


def config_of(settings: Settings, subject: Subject, prompt: PromptConfig) -> Config:
    """The training configuration whose policy and sampler the evaluation takes."""
    training = subject.training
    new_tokens = settings.max_new_tokens or (
        training.rollout.max_new_tokens if training else MAX_NEW_TOKENS
    )
    longest = settings.max_prompt_tokens or MAX_PROMPT_TOKENS
    return Config(
        model=subject.model,
        model_revision=subject.revision,
        adapter=settings.adapter,
        mesh=settings.mesh,
        seed=settings.seed,
        prompt=dataclasses.replace(prompt, max_tokens=longest),
        rollout=RolloutConfig(
            max_new_tokens=new_tokens,
            # Greedy responses say so themselves, one by one.
            temperature=settings.temperature or 1.0,
            top_p=settings.top_p,
            top_k=settings.top_k,
        ),
        update=UpdateConfig(compute_dtype=settings.compute_dtype),
    )


def sampler_of(policy: Policy, config: Config, settings: Settings) -> Sampler:
    """The sampler of a stream; to be made when the weights are on the devices.

    Its sizes decide memory and speed only.
    """
    shards = data_shards(policy.mesh)
    slots = settings.slots or shards * fitting_slots(policy, config.rollout.max_new_tokens)
    at_once = settings.prompts_at_once or max(-(-slots // REFILL_SHARE), shards)
    sampler = make_sampler(policy, config)
    sizes = dataclasses.replace(
        sampler.config, prompts=at_once, group_size=-(-slots // at_once), slots=slots
    )
    return dataclasses.replace(sampler, config=sizes)


def fitting_slots(policy: Policy, new_tokens: int) -> int:
    """Slots of a data shard whose caches fit beside the weights; the same in every process."""
    if policy.mesh.devices.flat[0].platform == "cpu":
        return CPU_SLOTS
    model, tensor = policy.model, policy.mesh.shape["tensor"]
    # Heads that the tensor axis does not divide are whole on each device.
    heads = model.num_kv_heads // (1 if model.num_kv_heads % tensor else tensor)
    one_token = 2 * model.num_layers * heads * model.head_dim
    per_slot = one_token * policy.compute.dtype.itemsize * (policy.prompt_width + new_tokens)
    free = [
        stats["bytes_limit"] - stats["bytes_in_use"]
        for device in policy.mesh.local_devices
        if (stats := device.memory_stats()) and "bytes_limit" in stats
    ]
    here = int(SHARE_OF_MEMORY * min(free) / per_slot) if free else CPU_SLOTS
    if jax.process_count() > 1:
        here = int(multihost_utils.process_allgather(np.int32(min(here, MOST_SLOTS))).min())
    # Slots in whole eights: fewer cost as much (`rl.slots`).
    return max(8, min(here, MOST_SLOTS) // 8 * 8)
