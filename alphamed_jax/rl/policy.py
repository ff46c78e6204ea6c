"""The policy and all that goes with its weights: opened once by a command, the same in every step.

A command enters its mesh (`with jax.set_mesh(policy.mesh)`) for all that it calls; `open_policy`
and the sampler, which may be called without one, enter it themselves. Training, whose weights are
on another where `update.mesh` says so, enters `policy.update_mesh`; rollouts, evaluations and
updates enter theirs.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Key

from alphamed_jax.config import Config, LoraConfig, PromptConfig
from alphamed_jax.data.prompts import check_prompt
from alphamed_jax.data.thought import begins_inside_thought
from alphamed_jax.data.tokenizer import known_tokens, load_tokenizer, stop_ids
from alphamed_jax.errors import UserError
from alphamed_jax.model import hf, lora, peft_folder
from alphamed_jax.model.attention import choose_attention
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.mesh import AnyMesh, check_heads, data_shards, make_mesh, other_mesh
from alphamed_jax.randomness import random_key
from alphamed_jax.rl.distribution import Sampling, absent_ids
from alphamed_jax.rl.language_model import Transformer
from alphamed_jax.rl.logprobs import Compute
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.sampler_run import SamplerConfig
from alphamed_jax.rl.slots import fewer_slots
from alphamed_jax.rl.update import Objective

UPDATE_MESH = "--update.mesh"


@dataclass(frozen=True)
class Policy:
    """A model on its meshes, how it is asked and read: all but the weights, which change."""

    folder: Path
    """Hugging Face folder that it was read from; empty where its weights are random."""
    model: ModelConfig
    mesh: Mesh
    """That of rollouts and evaluations."""
    update_mesh: Mesh
    """That of what learns, over the same devices: `mesh` but for `update.mesh`."""
    tokenizer: Any
    stop_ids: tuple[int, ...]
    """Any of them ends a response."""
    prompt: PromptConfig
    """How a question is put."""
    automaton: AnswerAutomaton
    """How an answer is read."""
    sampling: Sampling
    """The distribution that responses are drawn from, in the sampler and in the trainer."""
    compute: Compute
    key: Key[Array, ""]
    """Fixed for a run: with a sequence id it decides what is sampled."""
    prompt_width: int = 0
    """Tokens that all prompts are padded to; 0: those of a batch to what its longest needs."""

    def objective(self, config: Config) -> Objective:
        """What the programs of the update depend on."""
        return make_objective(config, self.model, self.sampling, self.compute)


def open_policy(config: Config) -> Policy:
    """Read and check all of a policy but its weights: mesh, model, tokenizer, prompt format.

    Raises:
      UserError: a mesh, prompt format, attention, model or target of adapters that cannot be.
    """
    check_prompt(config.prompt)
    mesh = make_mesh(config.mesh)
    folder = hf.locate(config.model, config.model_revision)
    model = hf.inspect(folder)
    check_heads(model.num_heads, model.num_kv_heads, mesh)
    update_mesh = mesh_of_update(config, model, mesh)
    lora.targets(model, config.lora)
    tokenizer = load_tokenizer(folder)
    with jax.set_mesh(mesh):
        key = random_key(config.seed)  # there, as are the keys that are folded from it
    return Policy(
        folder=folder,
        model=model,
        mesh=mesh,
        update_mesh=update_mesh,
        tokenizer=tokenizer,
        stop_ids=stop_ids(folder, tokenizer, model.vocab_size),
        prompt=config.prompt,
        automaton=AnswerAutomaton.from_tokenizer(
            tokenizer, inside_thought=begins_inside_thought(tokenizer, config.prompt)
        ),
        sampling=make_sampling(config, known_tokens(tokenizer, model.vocab_size)),
        compute=make_compute(config, model, mesh.devices.flat[0].platform),
        key=key,
    )


def mesh_of_update(config: Config, model: ModelConfig, mesh: AnyMesh) -> Any:
    """The mesh that what learns lies on, given that of rollouts.

    Raises:
      UserError: sizes that are not those of the devices, or do not fit the model's heads.
    """
    found = other_mesh(config.update.mesh, mesh, UPDATE_MESH)
    check_heads(model.num_heads, model.num_kv_heads, found, UPDATE_MESH)
    return found


def with_adapter(config: Config, model: ModelConfig) -> Config:
    """The configuration with rank, alpha and targets of the adapter that it names, if it does.

    Raises:
      UserError: see `peft_folder.inspect`; or something else was asked for.
    """
    if config.adapter is None:
        return config
    found = peft_folder.inspect(config.adapter, model)
    asked, usual = config.lora, LoraConfig()
    targets = tuple(lora.targets(model, dataclasses.replace(asked, rank=found.rank)))
    same = asked.targets == usual.targets or targets == found.targets
    if asked.rank not in (0, found.rank) or asked.alpha not in (usual.alpha, found.alpha):
        same = False
    if not same:
        raise UserError(
            f"--adapter {config.adapter} has rank {found.rank}, alpha {found.alpha:g} and targets "
            f"{', '.join(found.targets)}, not what lora.* says: leave that out."
        )
    found = dataclasses.replace(found, learning_rate_factor=asked.learning_rate_factor)
    return dataclasses.replace(config, lora=found)


def load_params(policy: Policy, config: Config, masters: bool = True) -> Params:
    """The weights that training begins with: float32 masters, or a frozen model and adapters.

    Args:
      masters: False: nothing is trained, and all but adapters are in the compute dtype.

    Raises:
      UserError: see `hf.load` and `peft_folder.load`.
    """
    dtype = jnp.float32 if masters and not config.lora.rank else policy.compute.dtype
    _, params = hf.load(policy.folder, policy.update_mesh, dtype=dtype)
    given = policy.model, config.lora, policy.update_mesh
    if config.adapter is None:
        with jax.set_mesh(policy.mesh):  # where the key is
            factors = lora.fresh_factors(*given, policy.key)
    else:
        factors = peft_folder.load(config.adapter, *given)
    return lora.attach(config.lora, params, factors)


def make_sampling(config: Config, known: Bool[np.ndarray, "V"] | None = None) -> Sampling:
    """The distribution that responses are drawn from.

    Args:
      known: which ids have a token (`data.tokenizer.known_tokens`); None: all.
    """
    rollout = config.rollout
    return Sampling(rollout.temperature, rollout.top_p, rollout.top_k, absent_ids(known))


def make_compute(config: Config, model: ModelConfig, platform: str) -> Compute:
    """How the forward pass is computed; `platform` decides what is automatic.

    Raises:
      UserError: an attention that platform, compute dtype or the model's head width do not allow.
    """
    update, name = config.update, config.update.compute_dtype
    if name == "auto":
        name = "float32" if platform == "cpu" else "bfloat16"
    dtype = jnp.dtype(name)
    attention = choose_attention(update.attention, platform, dtype, model.head_dim)
    return Compute(dtype, update.remat, update.logits_chunk, attention)


def make_objective(
    config: Config, model: ModelConfig, sampling: Sampling, compute: Compute
) -> Objective:
    """What the programs of the update depend on."""
    length = config.loss.constant_length or config.rollout.max_new_tokens
    # A constant rate does not know how long the run is, so a longer one compiles the same.
    constant = config.optimizer.schedule == "constant"
    factor = config.lora.learning_rate_factor if config.lora.rank else 1.0
    rate = config.optimizer.learning_rate * factor
    return Objective(
        model=model,
        sampling=sampling,
        compute=compute,
        loss=dataclasses.replace(config.loss, constant_length=length),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=rate),
        total_updates=0 if constant else config.steps * config.updates_per_step,
    )


def make_sampler(policy: Policy, config: Config) -> Sampler:
    """The sampler of a run's rollouts and evaluations."""
    rollout, compute = config.rollout, policy.compute
    shards = data_shards(policy.mesh)
    return Sampler(
        SamplerConfig(
            model=Transformer(
                policy.model,
                compute.dtype,
                compute.attention,
                sharded=rollout.weights == "sharded",
                int8_weights=rollout.weights_dtype == "int8",
                int8_cache=rollout.cache_dtype == "int8",
            ),
            sampling=policy.sampling,
            stop_ids=policy.stop_ids,
            max_new_tokens=rollout.max_new_tokens,
            prompts=rollout.prompts,
            group_size=rollout.group_size,
            slots=fewer_slots(rollout.prompts, rollout.group_size, rollout.slots, shards),
            max_prompt=policy.prompt_width,
        ),
        policy.mesh,
    )
