"""The whole configuration: one tree of frozen dataclasses, read from YAML and the command line.

The paper gives the algorithm and the data; it does not give batch sizes, rollouts, learning rate,
KL, lengths or prompt wording. Every number below is therefore our choice, with its reason.
"""

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml

from alphamed_jax.errors import UserError, nearest

QUICKSTART = Path(__file__).parent / "quickstart" / "config.yaml"


def _at_least(least: int, **values: float | int) -> None:
    """Refuse values below `least`; section_name=value stands for section.name."""
    for name, value in values.items():
        if value < least:
            shown = name.replace("_", ".", 1)
            raise UserError(f"{shown} is {value}: expected at least {least}.")


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

    def __post_init__(self):
        _at_least(1, prompt_max_tokens=self.max_tokens)


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

    def __post_init__(self):
        _at_least(1, rollout_prompts=self.prompts, rollout_max_new_tokens=self.max_new_tokens)
        if self.group_size < 2:
            raise UserError(
                f"rollout.group_size is {self.group_size}: an advantage is relative to the other "
                "responses of its group, so a group needs at least 2."
            )
        if self.temperature <= 0:
            raise UserError(
                f"rollout.temperature is {self.temperature}: greedy rollouts of one prompt are all "
                "equal and carry no signal; it must be above 0."
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"rollout.top_p is {self.top_p}: expected a number in (0, 1].")
        _at_least(0, rollout_top_k=self.top_k)


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
    """0 keeps no reference weights: with a rule for a reward there is no model to be hacked."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"

    def __post_init__(self):
        _at_least(0, loss_clip_low=self.clip_low, loss_clip_high=self.clip_high)
        _at_least(0, loss_kl_coef=self.kl_coef)
        if self.dual_clip is not None and self.dual_clip <= 1:
            raise UserError(f"loss.dual_clip is {self.dual_clip}: it must be above 1, or null.")


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

    def __post_init__(self):
        _at_least(0, optimizer_learning_rate=self.learning_rate)
        _at_least(0, optimizer_warmup_updates=self.warmup_updates)


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

    def __post_init__(self):
        _at_least(1, update_mini_batches=self.mini_batches, update_epochs=self.epochs)
        _at_least(1, update_micro_batch=self.micro_batch, update_logits_chunk=self.logits_chunk)


@dataclass(frozen=True)
class EvalConfig:
    """In-training evaluation on held-out questions, before the first step and at the end."""

    questions: int = 200
    """Held-out questions; taken out of the training set where a source has no split of its own."""
    samples: int = 1
    """Sampled responses per question, beside the greedy one."""
    every: int = 0
    """Also every so many steps; 0: only at the start and the end."""

    def __post_init__(self):
        _at_least(0, eval_questions=self.questions, eval_every=self.every)
        _at_least(1, eval_samples=self.samples)


@dataclass(frozen=True)
class LogConfig:
    """What is shown and kept."""

    samples: int = 4
    """Rollouts per step written to samples.jsonl."""
    table_every: int = 10
    """Steps between two tables of responses on the terminal; 0: none."""


@dataclass(frozen=True)
class Config:
    """GRPO on medical multiple-choice questions, from the answer key alone.

    Without --config and --model this trains the embedded quickstart. Flags override the file.
    """

    config: str | None = None
    """YAML file to start from; runs/NAME/config.yaml repeats that run."""
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

    def __post_init__(self):
        for name in ("steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: expected at least 1.")
        if self.rollout.prompts % self.update.mini_batches:
            raise UserError(
                f"update.mini_batches ({self.update.mini_batches}) does not divide "
                f"rollout.prompts ({self.rollout.prompts})."
            )
        if not self.data:
            raise UserError("data is empty: name at least one source.")

    @property
    def name(self) -> str:
        """Name of the run: of its configuration file, else of its model."""
        return Path(self.config).stem if self.config else Path(self.model).name

    @property
    def folder(self) -> Path:
        """Output folder."""
        return Path(self.output) if self.output else Path("runs") / self.name

    @property
    def updates_per_step(self) -> int:
        """Optimiser updates in one step."""
        return self.update.mini_batches * self.update.epochs


def _read_value(value: Any, kind: Any, where: str) -> Any:
    """Check one YAML value against its annotation and return it as that type."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_section(value, kind, where)
    if origin is Literal and value in options:
        return value
    if origin is tuple and isinstance(value, list | str):
        return (value,) if isinstance(value, str) else tuple(str(item) for item in value)
    if type(None) in options:
        if value is None:
            return None
        kind = options[0]
    # YAML 1.1 reads 1e-6 as text; a float it is.
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    if isinstance(kind, type) and type(value) is kind:
        return value
    expected = (
        " | ".join(map(repr, options)) if origin is Literal else getattr(kind, "__name__", kind)
    )
    raise UserError(f"{where}: expected {expected}, found {value!r}.")


def _read_section(values: Any, kind: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a section of keys, found {values!r}.")
    kinds = typing.get_type_hints(kind)
    for key in values:
        if key not in kinds:
            raise UserError(f"{where}: unknown key {key!r}.{nearest(str(key), kinds)}")
    separator = ": " if where.endswith((".yaml", ".yml")) else "."
    return kind(
        **{
            key: _read_value(value, kinds[key], f"{where}{separator}{key}")
            for key, value in values.items()
        }
    )


def load_config(path: Path | str) -> Config:
    """Read a YAML configuration; keys that are not given keep their defaults.

    Raises:
      UserError: no such file, not YAML, an unknown key (with the nearest known one) or a value
        of the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--config {path}: no such file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return dataclasses.replace(_read_section(values, Config, str(path)), config=str(path))


def to_yaml(config: Config) -> str:
    """The resolved configuration; `load_config` reads it back to the same run."""
    values = dataclasses.asdict(dataclasses.replace(config, output=str(config.folder)))
    del values["config"]
    values["data"] = list(config.data)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def parse_config(argv: Sequence[str], program: str, description: str) -> Config:
    """Read a command line: `--config` first, the quickstart where no model is named, then flags.

    Raises:
      UserError: an unknown flag (with the nearest known one) or a bad configuration.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    first.add_argument("--model")
    given, _ = first.parse_known_args(argv)
    if given.config:
        base = load_config(given.config)
    elif given.model in (None, "quickstart"):
        base = load_config(QUICKSTART)
        base = dataclasses.replace(base, config=None)
    else:
        base = Config()
    config, unknown = tyro.cli(
        Config,
        prog=program,
        description=description,
        default=base,
        args=list(argv),
        return_unknown_args=True,
    )
    if unknown:
        flags = [f"--{name}" for name in _flags(Config)]
        flag = unknown[0].split("=")[0]
        raise UserError(f"unknown argument {unknown[0]!r}.{nearest(flag, flags)}")
    return config


def _flags(kind: Any, prefix: str = "") -> list[str]:
    """Every flag's name, without its dashes."""
    names = []
    for name, hint in typing.get_type_hints(kind).items():
        flag = prefix + name.replace("_", "-")
        names += _flags(hint, flag + ".") if dataclasses.is_dataclass(hint) else [flag]
    return names
