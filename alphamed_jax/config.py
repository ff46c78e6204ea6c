"""The whole configuration: one tree of frozen dataclasses, read from YAML and the command line.

The paper gives the algorithm and the data; it does not give batch sizes, rollouts, learning rate,
KL, lengths or prompt wording. Every number below is therefore our choice, with its reason.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from alphamed_jax import embedded, run_folder
from alphamed_jax.config_io import (
    flag_names,
    is_unset,
    parse_flags,
    read_section,
    read_yaml,
    user_path,
)
from alphamed_jax.config_marks import Free, MayChange, OfProcess
from alphamed_jax.errors import UserError, nearest


def _at_least(least: int, **values: float | int) -> None:
    """Refuse values below `least`, NaN and infinity; section_name stands for section.name."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= least):
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
    """Questions in one step (P)."""
    group_size: int = 8
    """Rollouts per prompt (G). At least 2: the advantage is relative to the group."""
    max_new_tokens: int = 1024
    """Longer responses are cut; they are scored as they stand."""
    temperature: float = 1.0
    top_p: float = 1.0
    """Sample from the fewest tokens that hold this share of the probability; 1 keeps all."""
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    max_rounds: int = 1
    """Rounds of `prompts` fresh questions that a step may sample until so many groups carry a
    signal (DAPO's dynamic sampling). 1: a single one, as its cost is known beforehand."""
    weights: MayChange[Literal["gathered", "sharded"]] = "gathered"
    """gathered: while decoding, each data row of the mesh holds all weights in the compute dtype,
    split over `tensor` alone. sharded: over `fsdp` too, for models whose copy would not fit; then
    partial products travel at each step."""
    slots: MayChange[int | None] = None
    """Responses decoded at once, over the whole mesh; as one ends, the next takes its slot. null:
    all of a step, which is fastest where their caches fit into memory."""

    def __post_init__(self):
        _at_least(1, rollout_prompts=self.prompts, rollout_max_new_tokens=self.max_new_tokens)
        _at_least(1, rollout_max_rounds=self.max_rounds)
        if self.group_size < 2:
            raise UserError(
                f"rollout.group_size is {self.group_size}: an advantage is relative to the other "
                "responses of its group, so a group needs at least 2."
            )
        if not 0 < self.temperature < math.inf:
            raise UserError(
                f"rollout.temperature is {self.temperature}: greedy rollouts of one prompt are all "
                "equal and carry no signal; it must be a number above 0."
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"rollout.top_p is {self.top_p}: expected a number in (0, 1].")
        _at_least(0, rollout_top_k=self.top_k)
        if self.slots is not None:
            _at_least(1, rollout_slots=self.slots)


@dataclass(frozen=True)
class LossConfig:
    """The GRPO objective."""

    advantage: Literal["std", "none", "leave_one_out"] = "std"
    """std: (r - group mean) / group std; none: r - group mean; leave_one_out: RLOO."""
    clip_low: float = 0.2
    """Ratios below 1 - clip_low get no gradient where the advantage is negative."""
    clip_high: float = 0.2
    """Ratios above 1 + clip_high get no gradient where the advantage is positive."""
    dual_clip: float | None = None
    """Bound, above 1, on ratio where the advantage is negative; null: no bound."""
    ratio: Literal["token", "sequence"] = "token"
    """sequence: one length-normalised importance ratio per response (GSPO)."""
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """constant: sum over tokens / (sequences x constant_length), as Dr. GRPO."""
    constant_length: int | None = None
    """Divisor of `constant`; null takes rollout.max_new_tokens."""
    kl_coef: float = 0.0
    """0 keeps no reference weights: with a rule for a reward there is no model to be hacked."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """k3 is never negative and has the least variance."""
    tis_cap: float | None = None
    """Weigh a token by how much likelier the trainer finds it than the sampler did, at most by this
    (2 is usual; at least 1). null: all by 1, as in float32 the two agree; in bfloat16 less so."""

    def __post_init__(self):
        _at_least(0, loss_clip_low=self.clip_low, loss_clip_high=self.clip_high)
        _at_least(0, loss_kl_coef=self.kl_coef)
        if self.dual_clip is not None and not 1 < self.dual_clip < math.inf:
            raise UserError(f"loss.dual_clip is {self.dual_clip}: it must be above 1, or null.")
        if self.tis_cap is not None:
            _at_least(1, loss_tis_cap=self.tis_cap)
        if self.constant_length is not None:
            _at_least(1, loss_constant_length=self.constant_length)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW through optax.

    A batch without any signal has a gradient of zero and is an update like any other: the weights
    move on by what Adam remembers of earlier batches, and by weight decay. To stand still instead
    would make a batch without signal another thing than one with next to none, and leaving groups
    out of the forward pass a matter of more than cost.
    """

    learning_rate: float = 1e-6
    """The usual order of magnitude for full-parameter RL of instruct models."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up. linear and cosine would reach 0 one update after the last."""
    warmup_updates: int = 10
    """Updates over which the rate rises to its peak."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """A longer gradient is scaled down to this norm."""

    def __post_init__(self):
        _at_least(0, optimizer_learning_rate=self.learning_rate)
        _at_least(0, optimizer_warmup_updates=self.warmup_updates)
        _at_least(0, optimizer_weight_decay=self.weight_decay)
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"optimizer.{name} is {getattr(self, name)}: expected a number in [0, 1)."
                )
        for name in ("eps", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(
                    f"optimizer.{name} is {getattr(self, name)}: it must be a number above 0."
                )


@dataclass(frozen=True)
class UpdateConfig:
    """How a batch becomes updates. Below `epochs`, nothing changes the gradient but for rounding:
    its last digits in float32, some per cent of its length in bfloat16 (docs/numerics.md)."""

    mini_batches: int = 1
    """Optimiser updates per pass over the batch."""
    epochs: int = 1
    """Passes over the batch."""
    micro_batch: MayChange[int] = 64
    """Sequences in memory at once, over all data rows of the mesh."""
    skip_constant_groups: bool = True
    """Leave groups without signal out of the forward pass (only when kl_coef is 0)."""
    remat: MayChange[Literal["none", "layer", "dots"]] = "layer"
    """What the backward pass recomputes: nothing, each layer, or all but matrix products."""
    logits_chunk: MayChange[int] = 2048
    """Tokens per data row of the mesh whose logits exist at once; rounding in float32 aside, the
    gradient is the same."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on TPU and GPU, float32 on CPU. float32 is float32 everywhere, at a multiple
    of the price on TPUs and GPUs. Master weights and Adam's moments are always float32."""
    attention: MayChange[Literal["auto", "dense", "splash", "cudnn"]] = "auto"
    """Of training and prefill. auto: splash (Pallas) on TPU, cudnn on GPU where compute_dtype and
    head width allow it, else dense."""

    def __post_init__(self):
        _at_least(1, update_mini_batches=self.mini_batches, update_epochs=self.epochs)
        _at_least(1, update_micro_batch=self.micro_batch, update_logits_chunk=self.logits_chunk)


@dataclass(frozen=True)
class EvalConfig:
    """In-training evaluation on held-out questions, before the first step and at the end."""

    questions: int = 200
    """Held-out questions; taken out of the training set where a source has no split of its own."""
    samples: MayChange[int] = 1
    """Sampled responses per question, beside the greedy one."""
    every: MayChange[int] = 0
    """Also every so many steps; 0: only at the start and the end."""

    def __post_init__(self):
        _at_least(0, eval_questions=self.questions, eval_every=self.every)
        _at_least(1, eval_samples=self.samples)


@dataclass(frozen=True)
class LogConfig:
    """What is shown and kept."""

    samples: MayChange[int] = 4
    """Rollouts per step written to samples.jsonl."""
    table_every: MayChange[int] = 10
    """Steps between two tables of responses on the terminal; 0: none."""

    def __post_init__(self):
        _at_least(0, log_samples=self.samples, log_table_every=self.table_every)


@dataclass(frozen=True)
class Config:
    """GRPO on medical multiple-choice questions, from the answer key alone.

    Without --config and --model this trains the embedded quickstart. Flags override the file.
    """

    config: Free[str | None] = None
    """YAML file to start from; runs/NAME/config.yaml repeats that run."""
    model: OfProcess[str] = "quickstart"
    """Hugging Face folder or hub id of a Llama or Qwen2; `quickstart` is the embedded one."""
    model_revision: str | None = None
    """Branch, tag or commit of a hub id. null: the newest. It is resolved to a commit once, which
    the run keeps."""
    data: OfProcess[tuple[str, ...]] = ("quickstart",)
    """Sources: NAME from the hub, NAME=FILE in that source's schema, or FILE (.jsonl, .parquet)."""
    data_revisions: tuple[str, ...] = ()
    """NAME=REVISION: branch, tag or commit of a source that comes from the hub; else its newest.
    They are resolved to commits once, which the run keeps."""
    output: Free[str | None] = None
    """Folder of the run; null: runs/<config name>."""
    mesh: MayChange[str] = "auto"
    """FSDPxTENSOR or REPLICAxFSDPxTENSOR, as 8x8; a CPU machine simulates the devices. One with a
    GPU or TPU does so only where JAX_PLATFORMS says cpu."""
    steps: int = 300
    """Steps of the whole run: each samples, scores and updates once."""
    seed: int = 0
    """Decides the order of questions and every sampled token."""
    checkpoint_every: MayChange[int] = 20
    """Steps between checkpoints; the last step is always kept."""
    checkpoints: OfProcess[str | None] = None
    """Where they lie: a folder or gs://BUCKET/FOLDER that all processes reach; nothing else has to
    be shared. null: the folder `checkpoints` of the output."""
    coordinator: Free[str | None] = None
    """host:port of process 0, where TPU pod or Slurm do not tell."""
    num_processes: Free[int | None] = None
    """Processes of the run; goes with --coordinator."""
    process_id: Free[int | None] = None
    """Which of them this is, from 0; goes with --coordinator."""
    compilation_cache: Free[str] = "auto"
    """Where compiled programs are kept: a folder, `off`, or auto: JAX_COMPILATION_CACHE_DIR where
    it is set, else alphamed_jax/xla in the user's cache folder."""
    export: MayChange[bool] = True
    """Write the final policy as a Hugging Face folder."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self):
        for name in ("config", "model", "output", "checkpoints", "compilation_cache"):
            if text := getattr(self, name):
                object.__setattr__(self, name, user_path(text, name))
        for name in ("steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: expected at least 1.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}: expected 0 to {2**32 - 1}.")
        if not self.model:
            raise UserError("model is empty: name a folder or a hub id, or leave it out.")
        if self.model_revision is not None and not self.model_revision:
            raise UserError("model_revision is empty: name a branch, tag or commit, or none.")
        if self.rollout.prompts % self.update.mini_batches:
            raise UserError(
                f"update.mini_batches ({self.update.mini_batches}) does not divide "
                f"rollout.prompts ({self.rollout.prompts})."
            )
        if not self.data:
            raise UserError("data is empty: name at least one source.")
        if self.output and "://" in self.output:
            raise UserError(
                f"output is {self.output}: it is a folder of the machine of process 0; only "
                "checkpoints may be in a bucket, by --checkpoints gs://BUCKET/FOLDER."
            )
        if self.checkpoints is not None and not self.checkpoints:
            raise UserError("checkpoints is empty: it is a folder, gs://BUCKET/FOLDER, or null.")
        if self.checkpoints and "://" in self.checkpoints:
            bucket, _, folder = self.checkpoints.removeprefix("gs://").partition("/")
            if not self.checkpoints.startswith("gs://") or not bucket or not folder.strip("/"):
                raise UserError(
                    f"checkpoints is {self.checkpoints}: expected a folder or gs://BUCKET/FOLDER."
                )
        if not self.compilation_cache or is_unset(self.compilation_cache):
            raise UserError(
                f"compilation_cache is {self.compilation_cache!r}: expected auto, a folder, or off."
            )

    @property
    def name(self) -> str:
        """Name of the run: of its configuration file, else of its model.

        A file called config.yaml is named by its folder, so that runs/NAME/config.yaml is NAME.
        """
        if self.config:
            path = Path(self.config)
            named = path.absolute().parent.name if path.name == "config.yaml" else path.stem
            return named or path.stem
        path = Path(self.model)
        return path.resolve().name if path.name in ("", "..") else path.name

    @property
    def folder(self) -> Path:
        """Output folder."""
        return Path(self.output) if self.output else Path("runs") / self.name

    @property
    def checkpoint_folder(self) -> str:
        """Folder or gs:// URL of the checkpoints."""
        return self.checkpoints or str(self.folder / "checkpoints")

    @property
    def updates_per_step(self) -> int:
        """Optimiser updates in one step."""
        return self.update.mini_batches * self.update.epochs


def load_config(path: Path | str) -> Config:
    """Read a YAML configuration; keys that are not given keep their defaults.

    Raises:
      UserError: no such file, not YAML, an unknown key (with the nearest known one), a key given
        twice, or a value of the wrong type or out of its range.
    """
    # The file that is read is its own name: `config` is no key of it.
    values = read_yaml(Path(path))
    if isinstance(values, dict) and values.get("compilation_cache") is False:
        values["compilation_cache"] = "off"
    read = read_section(values, Config, str(path), without=("config",))
    return dataclasses.replace(read, config=str(path))


def to_yaml(config: Config) -> str:
    """The resolved configuration; `load_config` reads it back to the same run."""
    values = dataclasses.asdict(dataclasses.replace(config, output=str(config.folder)))
    del values["config"]
    values |= {"data": list(config.data), "data_revisions": list(config.data_revisions)}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    # Unescaped, a few line ends of Unicode would be read back as spaces.
    return text if yaml.safe_load(text) == values else yaml.safe_dump(values, sort_keys=False)


def parse_config(argv: Sequence[str], program: str, description: str) -> Config:
    """Read a command line: `--config` first, the quickstart where no model is named, then flags.

    Raises:
      UserError: an unknown flag (with the nearest known one), a value that is not of its kind, or
        a bad configuration.
    """
    for argument in argv:
        if not argument.isprintable() and any("\ud800" <= c <= "\udfff" for c in argument):
            raise UserError(f"{argument!a} is not UTF-8, and no file of the run could hold it.")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config")
    first.add_argument("--model")
    try:
        given, _ = first.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}.") from None
    if given.config and not is_unset(given.config):
        base = run_folder.at_home(load_config(user_path(given.config, "config")))
    elif given.model in (None, "quickstart"):
        base = load_config(embedded.CONFIG)
        base = dataclasses.replace(base, config=None)
    else:
        base = Config()
    # Elsewhere the last of two wins, as is usual; here it would silently drop a data set.
    for flag in ("--data", "--data-revisions"):
        if sum(argument.split("=")[0] == flag for argument in argv) > 1:
            raise UserError(f"{flag} is given twice: name all sources after one, as {flag} A B.")
    config, unknown = parse_flags(argv, program, description, base)
    if unknown:
        flag = unknown[0].split("=")[0]
        raise UserError(f"unknown argument {unknown[0]!r}.{nearest(flag, flag_names(Config))}")
    return dataclasses.replace(config, config=base.config)  # also from where the run was started
