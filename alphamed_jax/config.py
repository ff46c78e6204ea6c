"""The whole configuration: one tree of frozen dataclasses, read from YAML and the command line.

The paper gives the algorithm and the data; it does not give batch sizes, rollouts, learning rate,
KL, lengths or prompt wording. Every number below is therefore our choice, with its reason.
"""

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from alphamed_jax.errors import UserError, nearest

QUICKSTART = Path(__file__).parent / "quickstart" / "config.yaml"


@dataclass(frozen=True)
class PromptConfig:
    """How a question becomes token ids; training and evaluation share it."""

    style: Literal["auto", "chat", "plain"] = "auto"
    """auto: the tokenizer's chat template where it has one, else plain text."""
    system: str = ""
    """System message of the chat; empty leaves it to the template."""
    question_format: str = "{question}\n\n{options}\n\n{instruction}"
    """Layout of the user's message."""
    option_format: str = "{letter}. {text}"
    """One option; options are joined by line breaks."""
    instruction: str = (
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    )
    """Our wording; the paper's is not known."""
    max_tokens: int = 1024
    """Longer prompts are dropped, counted and reported."""


@dataclass(frozen=True)
class RolloutConfig:
    """What is sampled in one step: `prompts` x `group_size` responses."""

    prompts: int = 64
    group_size: int = 8
    """Rollouts per prompt (G). At least 2: the advantage is relative to the group."""
    max_new_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""


@dataclass(frozen=True)
class LossConfig:
    """The GRPO objective."""

    advantage: Literal["std", "none", "leave_one_out"] = "std"
    """std: (r - group mean) / group std; none: r - group mean; leave_one_out: RLOO."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    ratio: Literal["token", "sequence"] = "token"
    """sequence: one length-normalised importance ratio per response (GSPO)."""
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """constant: sum over tokens / (sequences x constant_length), as Dr. GRPO."""
    constant_length: int | None = None
    """Divisor of `constant`; none takes rollout.max_new_tokens."""
    kl_coef: float = 0.0
    """0 keeps no reference weights. A binary rule leaves nothing for a reward model to be hacked."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW through optax."""

    learning_rate: float = 1e-6
    """The usual order of magnitude for full-parameter RL of instruct models."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_updates: int = 10
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class UpdateConfig:
    """How the gradient of one batch is computed; none of this changes its value."""

    mini_batches: int = 1
    """Optimiser updates per pass over the batch."""
    epochs: int = 1
    """Passes over the batch."""
    micro_batch: int = 64
    """Sequences in memory at once, over all data rows of the mesh."""
    skip_constant_groups: bool = True
    """Leave groups without signal out of the forward pass (only when kl_coef is 0)."""
    remat: Literal["none", "layer", "dots"] = "layer"
    """What the backward pass recomputes: nothing, each layer, or all but matrix products."""
    logits_chunk: int = 2048
    """Tokens per data row of the mesh whose logits exist at once."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on TPU and GPU, float32 on CPU. Master weights are always float32."""


@dataclass(frozen=True)
class EvalConfig:
    """In-training evaluation on held-out questions, before the first step and at the end."""

    questions: int = 200
    """Held-out questions; taken out of the training set where a source has no split of its own."""
    samples: int = 1
    """Sampled responses per question, beside the greedy one."""
    every: int = 0
    """Also every so many steps; 0: only at the start and the end."""


@dataclass(frozen=True)
class LogConfig:
    """What is shown and kept."""

    samples: int = 4
    """Rollouts per step written to samples.jsonl."""
    table_every: int = 10
    """Steps between two tables of responses on the terminal; 0: none."""


@dataclass(frozen=True)
class Config:
    """GRPO on medical multiple-choice questions, from the answer key alone."""

    model: str = "quickstart"
    """Hugging Face folder or hub id of a Llama or Qwen2; `quickstart` is the embedded one."""
    data: tuple[str, ...] = ("quickstart",)
    """Sources: NAME from the hub, NAME=FILE in that source's schema, or FILE (.jsonl, .parquet)."""
    output: str | None = None
    """Folder of the run; default runs/<config name>."""
    mesh: str = "auto"
    """FSDPxTENSOR or REPLICAxFSDPxTENSOR, as 8x8; a CPU machine simulates the devices."""
    steps: int = 300
    seed: int = 0
    checkpoint_every: int = 20
    """Steps between checkpoints; the last step is always kept."""
    coordinator: str | None = None
    """host:port of process 0, where TPU pod or Slurm do not tell."""
    num_processes: int | None = None
    process_id: int | None = None
    export: bool = True
    """Write the final policy as a Hugging Face folder."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)
