"""The whole configuration: one tree of frozen dataclasses, read from YAML and the command line."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from alphamed_jax import embedded, run_folder
from alphamed_jax.config_io import (
    flag_names,
    is_unset,
    parse_flags,
    read_section,
    read_yaml,
    refuse_unknown,
    user_path,
)
from alphamed_jax.config_marks import MayChange, OfProcess, OfStart
from alphamed_jax.config_sections import (
    CurriculumConfig,
    EvalConfig,
    LogConfig,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
    PromptConfig,
    RewardConfig,
    RolloutConfig,
    UpdateConfig,
)
from alphamed_jax.errors import UserError


@dataclass(frozen=True)
class Config:
    """GRPO on medical multiple-choice questions, from the answer key alone.

    Without --config and --model this trains the embedded quickstart. Flags override the file.
    """

    config: OfStart[str | None] = None
    """YAML file to start from; runs/NAME/config.yaml repeats that run."""
    model: OfProcess[str] = "quickstart"
    """Hugging Face folder or hub id of a Llama, Qwen2, Qwen3; `quickstart` is the embedded one."""
    model_revision: str | None = None
    """Branch, tag or commit of a hub id. null: the newest. It is resolved to a commit once, which
    the run keeps."""
    adapter: OfProcess[str | None] = None
    """Folder of an adapter as peft writes it, beside `model`: training goes on from it, with its
    rank, alpha and targets. null: with lora.rank, a new one."""
    data: OfProcess[tuple[str, ...]] = ("quickstart",)
    """Sources: NAME from the hub, NAME=FILE in that source's schema (.jsonl, .parquet, .csv, or a
    folder of files of the hub), or FILE in our own."""
    allow_test_data: bool = False
    """Train on published tests too, where `data` names one as NAME:test; the run's record and
    report then say so."""
    data_revisions: tuple[str, ...] = ()
    """NAME=REVISION: branch, tag or commit of a source that comes from the hub; else its newest.
    They are resolved to commits once, which the run keeps."""
    data_weights: tuple[str, ...] = ()
    """NAME=W for each source: its share of the questions drawn, relative to the others. Without
    any, each question of the run is drawn equally often."""
    output: OfStart[str | None] = None
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
    coordinator: OfStart[str | None] = None
    """host:port of process 0, where TPU pod or Slurm do not tell."""
    num_processes: OfStart[int | None] = None
    """Processes of the run; goes with --coordinator."""
    process_id: OfStart[int | None] = None
    """Which of them this is, from 0; goes with --coordinator."""
    compilation_cache: OfStart[str] = "auto"
    """Where compiled programs are kept: a folder, `off`, or auto: JAX_COMPILATION_CACHE_DIR where
    it is set, else alphamed_jax/xla in the user's cache folder."""
    export: MayChange[bool] = True
    """Write the final policy as a Hugging Face folder, adapters added to the weights; they are
    written by themselves, too, whatever is set here."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self):
        for name in ("config", "model", "adapter", "output", "checkpoints", "compilation_cache"):
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
            raise UserError("model_revision is empty: name a branch, tag or commit, or null.")
        if self.rollout.prompts % self.update.mini_batches:
            raise UserError(
                f"update.mini_batches ({self.update.mini_batches}) does not divide "
                f"rollout.prompts ({self.rollout.prompts})."
            )
        if (self.reward.overlong_cache or 0) > self.rollout.max_new_tokens:
            raise UserError(
                f"reward.overlong_cache ({self.reward.overlong_cache}) is above "
                f"rollout.max_new_tokens ({self.rollout.max_new_tokens}), of which it is a part."
            )
        for name in ("weights_dtype", "cache_dtype"):
            if getattr(self.rollout, name) == "int8" and self.loss.tis_cap is None:
                raise UserError(
                    f"rollout.{name} is int8, so that responses are drawn from a rounded policy: "
                    "it needs loss.tis_cap, as --loss.tis-cap 2, which weighs tokens by what that "
                    "changes."
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

    @property
    def only_effective(self) -> bool:
        """Whether ineffective groups are left out of the forward pass: a KL term needs them."""
        return self.update.skip_constant_groups and self.loss.kl_coef == 0


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
    values["eval"] |= {name: list(values["eval"][name]) for name in ("benchmarks", "data")}
    values["data_weights"] = list(config.data_weights)
    values["lora"]["targets"] = list(config.lora.targets)
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
    for flag in (
        "--data",
        "--data-revisions",
        "--data-weights",
        "--eval.benchmarks",
        "--eval.data",
        "--lora.targets",
    ):
        if sum(argument.split("=")[0] == flag for argument in argv) > 1:
            what = "targets" if flag == "--lora.targets" else "sources"
            raise UserError(f"{flag} is given twice: name all {what} after one, as {flag} A B.")
    config, unknown = parse_flags(argv, program, description, base)
    refuse_unknown(unknown, flag_names(Config))
    return dataclasses.replace(config, config=base.config)  # also from where the run was started
