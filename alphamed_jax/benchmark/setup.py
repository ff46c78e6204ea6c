"""A learner of any shape with random weights, and batches of exact or long-tailed lengths."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from alphamed_jax.config import Config, OptimizerConfig, RolloutConfig, UpdateConfig
from alphamed_jax.data.prompts import EncodedQuestion
from alphamed_jax.data.questions import Question
from alphamed_jax.errors import UserError
from alphamed_jax.model import llama
from alphamed_jax.model.llama import LlamaConfig
from alphamed_jax.model.mesh import sharding
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.step import Learner, make_settings
from alphamed_jax.rl.update import TrainState, init_state

# Long-tailed lengths, our choice: log-normal with the median at a sixth of the longest, and a
# standard deviation of 0.8 in the logarithm, of which groups share 0.5. One in eighty is cut.
MEDIAN_SHARE, GROUP_SPREAD, OWN_SPREAD = 1 / 6, 0.5, 0.6245


@dataclass(frozen=True)
class BenchConfig:
    """Time a GRPO step on random weights of a given shape, beside what the machine can do."""

    vocab: int = 49152
    hidden: int = 576
    layers: int = 30
    heads: int = 9
    kv_heads: int = 3
    intermediate: int = 1536
    head_dim: int | None = None
    """Width of a head; none: hidden / heads."""
    tie: bool = True
    """Whether embedding and head are one table."""
    prompts: int = 2
    """Prompts in a step."""
    generations: int = 4
    """Responses to each prompt."""
    prompt_len: int = 64
    """Tokens of a prompt; the most, where lengths vary."""
    completion_len: int = 64
    """Tokens of a response; the most, where lengths vary."""
    warmup: int = 2
    """Steps that are not counted, the first of which compiles."""
    steps: int = 5
    """Steps that are counted; medians are taken over them."""
    workload: Literal["exact", "realistic"] = "exact"
    """realistic: long-tailed lengths and few groups with signal; prints what each saving saves."""
    effective: float = 0.3
    """Share of groups with a signal in the realistic workload."""
    slots: int | None = None
    """Responses decoded at once; none: all, and a quarter of them in the realistic workload."""
    micro_batch: int | None = None
    """Lanes in memory at once; none: all, and 16 in the realistic workload."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; master weights are float32."""
    remat: Literal["none", "layer", "dots"] = "none"
    """What the backward pass recomputes."""
    mesh: str = "1x1"
    """FSDPxTENSOR or REPLICAxFSDPxTENSOR; a CPU machine simulates the devices."""
    seed: int = 0
    """Of weights, prompts, lengths and samples."""
    profile: str | None = None
    """Folder for a trace of one more step, for xprof or Perfetto."""

    def __post_init__(self):
        sizes = ("vocab", "hidden", "layers", "heads", "kv_heads", "intermediate", "prompts")
        for name in (*sizes, "prompt_len", "completion_len", "steps", "warmup"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')}: expected at least 1.")
        if self.heads % self.kv_heads:
            raise UserError(f"--heads {self.heads} is no multiple of --kv-heads {self.kv_heads}.")
        if self.head_dim is None and self.hidden % self.heads:
            raise UserError(f"--hidden {self.hidden} is no multiple of --heads; give --head-dim.")
        if not 0 < self.effective <= 1:
            raise UserError(f"--effective {self.effective}: expected a share in (0, 1].")

    @property
    def model(self) -> LlamaConfig:
        """The network."""
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_layers=self.layers,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim or self.hidden // self.heads,
            tie_embeddings=self.tie,
        )

    @property
    def train(self) -> Config:
        """The training configuration that has this work."""
        responses = self.prompts * self.generations
        real = self.workload == "realistic"
        return Config(
            mesh=self.mesh,
            seed=self.seed,
            rollout=RolloutConfig(
                prompts=self.prompts,
                group_size=self.generations,
                max_new_tokens=self.completion_len,
                slots=self.slots or (max(responses // 4, 1) if real else None),
            ),
            optimizer=OptimizerConfig(warmup_updates=0),
            update=UpdateConfig(
                micro_batch=self.micro_batch or (min(16, responses) if real else responses),
                remat=self.remat,
                compute_dtype=self.dtype,
            ),
        )


class Batch(NamedTuple):
    """The questions of a step and what is to become of them."""

    questions: list[EncodedQuestion]
    limits: Int[np.ndarray, "B"]
    """Length of each response."""
    rewards: Float[np.ndarray, "B"]
    """Made up: random weights answer nothing."""


def make_learner(config: BenchConfig, mesh: Mesh) -> tuple[Learner, TrainState]:
    """Random weights and what goes with them. No token ends a response."""
    model, train = config.model, config.train
    shapes = jax.eval_shape(lambda: llama.init(model, jax.random.key(0)))
    layout = llama.map_weights(lambda s, a: sharding(a, s, mesh), llama.weights(model))
    assert jax.tree.structure(shapes) == jax.tree.structure(layout)
    params = jax.jit(lambda key: llama.init(model, key), out_shardings=layout)(
        jax.random.key(config.seed)
    )
    settings = make_settings(train, model, mesh.devices.flat[0].platform)
    words = [bytes([i]) if i < 256 else b" t%d" % i for i in range(config.vocab)]
    learner = Learner(
        config=train,
        settings=settings,
        automaton=AnswerAutomaton.from_token_bytes(words),
        stop_ids=(config.vocab,),
        key=jax.random.key(config.seed),
    )
    return learner, init_state(settings, params)


def make_batch(config: BenchConfig, step: int) -> Batch:
    """The batch of a step. Exact: all of one length and every group half right."""
    rng = np.random.default_rng((config.seed, step))
    shape = config.prompts, config.generations
    prompts = np.full(config.prompts, config.prompt_len)
    lengths = np.full(shape, config.completion_len)
    mixed = np.ones(config.prompts, bool)
    if config.workload == "realistic":
        prompts = rng.integers(config.prompt_len // 2, config.prompt_len, shape[0], endpoint=True)
        spread = GROUP_SPREAD * rng.normal(size=(shape[0], 1)) + OWN_SPREAD * rng.normal(size=shape)
        drawn = config.completion_len * MEDIAN_SHARE * np.exp(spread)
        lengths = np.clip(drawn, 1, config.completion_len)
        mixed = np.arange(config.prompts) < round(config.effective * config.prompts)
        mixed = rng.permutation(mixed)
    half = np.arange(config.generations) % 2 == 0
    rewards = np.where(mixed[:, None], half, rng.random(shape[0])[:, None] < 0.5)
    question = Question("bench", "?", ("a", "b", "c", "d"), "A", "bench")
    return Batch(
        [EncodedQuestion(question, rng.integers(0, config.vocab, n).tolist()) for n in prompts],
        lengths.reshape(-1).astype(np.int32),
        rewards.reshape(-1).astype(np.float32),
    )


def compute_dtype(config: BenchConfig) -> Any:
    """As a JAX dtype."""
    return jnp.dtype(config.dtype)
