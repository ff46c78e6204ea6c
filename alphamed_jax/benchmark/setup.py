"""A policy of any shape with random weights, and batches of exact or long-tailed lengths."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from alphamed_jax.config import (
    Config,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
    RolloutConfig,
    UpdateConfig,
)
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError
from alphamed_jax.model import lora, modules, network
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import sharding
from alphamed_jax.model.shapes import LLAMA_1B, LLAMA_3B, LLAMA_8B, LLAMA_70B
from alphamed_jax.randomness import random_key
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.policy import Policy, make_compute, make_sampling
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.update import TrainState, init_state

# Long-tailed lengths, our choice: log-normal with the median at a sixth of the longest, and a
# standard deviation of 0.8 in the logarithm, of which groups share 0.5. One in eighty is cut.
MEDIAN_SHARE, GROUP_SPREAD, OWN_SPREAD = 1 / 6, 0.5, 0.6245


SHAPES = {
    "smollm2-135m": ModelConfig(49152, 576, 1536, 30, 9, 3, 64, tie_embeddings=True),
    "small": ModelConfig(2048, 128, 384, 4, 4, 2, 32, tie_embeddings=True),
    "llama-3.2-1b": LLAMA_1B,
    "llama-3.2-3b": LLAMA_3B,
    "llama-3.1-8b": LLAMA_8B,
    "llama-3.1-70b": LLAMA_70B,
}


class StepSizes(NamedTuple):
    """The sizes of a step."""

    prompts: int
    generations: int
    prompt_len: int
    completion_len: int

    @property
    def responses(self) -> int:
        """Sequences of a step."""
        return self.prompts * self.generations


@dataclass(frozen=True)
class BenchConfig:
    """Time a GRPO step on random weights of a given shape, beside what the machine can do."""

    shape: Literal[
        "smollm2-135m", "small", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b"
    ] = "smollm2-135m"
    """Sizes of the network that are not given below."""
    vocab: int | None = None
    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    intermediate: int | None = None
    head_dim: int | None = None
    """Width of a head; where --hidden or --heads is given, hidden / heads."""
    tie: bool | None = None
    """Whether embedding and head are one table."""
    prompts: int | None = None
    """Prompts in a step; null: 2, and 64 with --compile-only."""
    generations: int | None = None
    """Responses to each prompt; null: 4, and 8 with --compile-only."""
    prompt_len: int | None = None
    """Tokens of a prompt, the most where lengths vary; null: 64, and 384 with --compile-only."""
    completion_len: int | None = None
    """Tokens of a response, the most where lengths vary; null: 64, 1024 with --compile-only."""
    warmup: int = 2
    """Steps that are not counted, the first of which compiles."""
    steps: int = 5
    """Steps that are counted; medians are taken over them."""
    workload: Literal["exact", "realistic"] = "exact"
    """realistic: long-tailed lengths and few effective groups; prints what each saving saves."""
    effective: float = 0.3
    """Share of effective groups in the realistic workload."""
    slots: int | None = None
    """Responses decoded at once; null: all, and a quarter of them in the realistic workload."""
    micro_batch: int | None = None
    """Packed rows in memory at once; null: all, and 16 in the realistic workload."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; master weights are float32."""
    weights_dtype: Literal["compute", "int8"] = "compute"
    """Of the matrices that decoding reads, as rollout.weights_dtype."""
    cache_dtype: Literal["compute", "int8"] = "compute"
    """Of keys and values while decoding, as rollout.cache_dtype."""
    remat: Literal["none", "layer", "dots", "offload"] = "none"
    """What the backward pass recomputes."""
    attention: Literal["auto", "dense", "splash", "cudnn"] = "auto"
    """Of the update and prefill; auto: what fits the platform, with --compile-only splash."""
    lora: LoraConfig = LoraConfig()
    """Adapters beside a frozen model; rank 0: all weights are trained."""
    mesh: str = "1x1"
    """FSDPxTENSOR or REPLICAxFSDPxTENSOR; a CPU machine simulates the devices."""
    seed: int = 0
    """Of weights, prompts, lengths and samples."""
    profile: str | None = None
    """Folder for a trace of one more step, for xprof or Perfetto."""
    compile_only: str | None = None
    """TPU topology, as v5e:8x8: compile the programs for it (bfloat16, remat of each layer), time
    nothing, and print what they cost beside what the model needs. Goes with --mesh."""

    def __post_init__(self):
        sizes = ("vocab", "hidden", "layers", "heads", "kv_heads", "intermediate", "head_dim")
        work = ("prompts", "generations", "prompt_len", "completion_len", "slots", "micro_batch")
        for name in (*sizes, *work, "steps", "warmup"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}: expected at least 1.")
        if not 0 < self.effective <= 1:
            raise UserError(f"--effective {self.effective}: expected a share in (0, 1].")
        model = self.model
        if model.num_heads % model.num_kv_heads:
            raise UserError(
                f"{model.num_heads} heads are no multiple of {model.num_kv_heads} key/value heads."
            )

    @property
    def model(self) -> ModelConfig:
        """The network.

        Raises:
          UserError: the heads do not divide the width.
        """
        known, head_dim = SHAPES[self.shape], self.head_dim
        if head_dim is None and (self.hidden or self.heads):
            hidden, heads = self.hidden or known.hidden_size, self.heads or known.num_heads
            if hidden % heads:
                raise UserError(f"{heads} heads do not divide --hidden {hidden}; give --head-dim.")
            head_dim = hidden // heads
        given = {
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_layers": self.layers,
            "num_heads": self.heads,
            "num_kv_heads": self.kv_heads,
            "head_dim": head_dim,
            "tie_embeddings": self.tie,
        }
        return dataclasses.replace(known, **{k: v for k, v in given.items() if v is not None})

    @property
    def work(self) -> StepSizes:
        """The sizes of a step."""
        given = (self.prompts, self.generations, self.prompt_len, self.completion_len)
        usual = (64, 8, 384, 1024) if self.compile_only else (2, 4, 64, 64)
        return StepSizes(*(usual[i] if size is None else size for i, size in enumerate(given)))

    @property
    def rounded(self) -> bool:
        """Whether decoding reads anything in 8 bits."""
        return "int8" in (self.weights_dtype, self.cache_dtype)

    @property
    def train(self) -> Config:
        """The training configuration that has this work."""
        work, real = self.work, self.workload == "realistic"
        return Config(
            mesh=self.mesh,
            seed=self.seed,
            rollout=RolloutConfig(
                prompts=work.prompts,
                group_size=work.generations,
                max_new_tokens=work.completion_len,
                slots=self.slots or (max(work.responses // 4, 1) if real else None),
                weights_dtype=self.weights_dtype,
                cache_dtype=self.cache_dtype,
            ),
            # As a run must have it where what is sampled is rounded.
            loss=LossConfig(tis_cap=2.0 if self.rounded else None),
            optimizer=OptimizerConfig(warmup_updates=0),
            lora=self.lora,
            update=UpdateConfig(
                micro_batch=self.micro_batch
                or (min(16, work.responses) if real else work.responses),
                remat=self.remat,
                compute_dtype=self.dtype,
                attention=self.attention,
            ),
        )


class Batch(NamedTuple):
    """The questions of a step and what is to become of them."""

    questions: list[Prompt]
    limits: Int[np.ndarray, "B"]
    """Length of each response."""
    rewards: Float[np.ndarray, "B"]
    """Made up: random weights answer nothing."""


def make_policy(config: BenchConfig, mesh: Mesh) -> tuple[Policy, TrainState]:
    """Random weights and what goes with them. No token ends a response."""
    model, train = config.model, config.train
    shapes = jax.eval_shape(lambda: modules.init(model, random_key(0)))
    layout = network.map_weights(lambda s, a: sharding(a, s, mesh), network.weights(model))
    assert jax.tree.structure(shapes) == jax.tree.structure(layout)
    compute = make_compute(train, model, mesh.devices.flat[0].platform)
    dtype = compute.dtype if config.lora.rank else jnp.float32

    def make(key):
        return jax.tree.map(lambda x: x.astype(dtype), modules.init(model, key))

    params = jax.jit(make, out_shardings=layout)(random_key(config.seed))
    factors = lora.fresh_factors(model, config.lora, mesh, random_key(config.seed))
    params = lora.attach(config.lora, params, factors)
    words = [bytes([i]) if i < 256 else b" t%d" % i for i in range(model.vocab_size)]
    with jax.set_mesh(mesh):
        key = random_key(config.seed)
    policy = Policy(
        folder=Path(),
        model=model,
        mesh=mesh,
        update_mesh=mesh,
        tokenizer=None,
        prompt=train.prompt,
        sampling=make_sampling(train),
        compute=compute,
        automaton=AnswerAutomaton.from_token_bytes(words),
        stop_ids=(model.vocab_size,),
        key=key,
        prompt_width=bucket(config.work.prompt_len),
    )
    return policy, init_state(policy.objective(train), params)


def make_batch(config: BenchConfig, step: int) -> Batch:
    """The batch of a step. Exact: all of one length and every group half right."""
    rng, work = np.random.default_rng((config.seed, step)), config.work
    shape = work.prompts, work.generations
    prompts = np.full(work.prompts, work.prompt_len)
    lengths = np.full(shape, work.completion_len)
    effective = np.ones(work.prompts, bool)
    if config.workload == "realistic":
        prompts = rng.integers(-(-work.prompt_len // 2), work.prompt_len, shape[0], endpoint=True)
        spread = GROUP_SPREAD * rng.normal(size=(shape[0], 1)) + OWN_SPREAD * rng.normal(size=shape)
        drawn = work.completion_len * MEDIAN_SHARE * np.exp(spread)
        lengths = np.clip(drawn, 1, work.completion_len)
        effective = np.arange(work.prompts) < round(config.effective * work.prompts)
        effective = rng.permutation(effective)
    half = np.arange(work.generations) % 2 == 0
    rewards = np.where(effective[:, None], half, rng.random(shape[0])[:, None] < 0.5)
    question = Question("bench", "?", ("a", "b", "c", "d"), "A", "bench")
    vocabulary = config.model.vocab_size
    return Batch(
        [Prompt(question, rng.integers(0, vocabulary, n).tolist()) for n in prompts],
        lengths.reshape(-1).astype(np.int32),
        rewards.reshape(-1).astype(np.float32),
    )


def compute_dtype(config: BenchConfig) -> Any:
    """As a JAX dtype."""
    return jnp.dtype(config.dtype)
