"""The settings of an evaluation: one flat dataclass, every field of it a flag."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alphamed_jax.config_io import flags_of, is_unset, user_path
from alphamed_jax.config_marks import MayChange, OfProcess, OfStart
from alphamed_jax.errors import UserError

LISTS = ("benchmarks", "data", "revisions", "variants")
"""Settings that take several values, after one flag."""


@dataclass(frozen=True)
class Settings:
    """What is evaluated, on which questions, and how it is asked."""

    model: OfProcess[str | None] = None
    """Hugging Face folder, hub id, output folder of a training run (its export is evaluated), or
    `quickstart`, the embedded model."""
    model_revision: str | None = None
    """Branch, tag or commit of a hub id. null: the newest."""
    adapter: OfProcess[str | None] = None
    """Folder of an adapter as peft writes it, beside the model; a run with adapters has one."""
    benchmarks: tuple[str, ...] = ()
    """Names, or names of variants, with commas or blanks between them: medqa,medmcqa."""
    data: OfProcess[tuple[str, ...]] = ()
    """NAME=FILE: the rows of a benchmark in a file (.jsonl, .parquet, .csv) instead of the hub, or,
    under a new name, questions of your own. NAME:BENCHMARK=FILE: any rows, in the schema of a
    benchmark. What --benchmarks does not name is asked, too."""
    revisions: tuple[str, ...] = ()
    """NAME=REVISION: branch, tag or commit of a benchmark that comes from the hub."""
    limit: int | None = None
    """Questions of each benchmark, a sample drawn by --seed. null: all."""
    prompt: OfProcess[str | None] = None
    """plain (only the boxed letter), cot (step by step), or a YAML file with the keys of the
    configuration's section `prompt`, or with that section, as a run's config.yaml. null: that of
    the training run where the model is one's export, else cot."""
    samples: int = 1
    """Responses to each question."""
    temperature: float = 0.0
    """0: greedy, the likeliest token each time. Above, it divides the logits."""
    top_p: float = 1.0
    """Sample from the fewest tokens that hold this share of the probability; 1 keeps all."""
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    max_new_tokens: int | None = None
    """Longer responses are cut, and count as truncated. null: rollout.max_new_tokens of the
    training run, else 2048."""
    max_prompt_tokens: int | None = None
    """Questions with longer prompts are not asked, and counted; never cut. null: 4096."""
    seed: int = 0
    """Decides which questions --limit takes, and every sampled token."""
    output: OfStart[str | None] = None
    """Folder of the results; null: evaluations/NAME, by the name of the model."""
    variants: tuple[str, ...] = ()
    """Changed forms of the questions to ask beside them: order=N, none-of-the-above,
    fewer-options, with commas or blanks between them."""
    rule: str = "boxed"
    """How the answer is read out of a response; `alphamed evaluate rescore` reads them anew."""
    responses: OfProcess[str | None] = None
    """Somebody else's responses instead of a model: JSON lines with the `id` of a question of
    --data NAME=FILE and the `response`."""
    baselines: bool = False
    """Of a training run: evaluate the base model with the plain prompt, the base model with the
    training's prompt, and the trained model, and compare the three."""
    published: MayChange[bool] = False
    """Show published figures of other models beside the results."""
    mesh: MayChange[str] = "auto"
    """FSDPxTENSOR or REPLICAxFSDPxTENSOR, as 8x1; a CPU machine simulates the devices."""
    slots: MayChange[int | None] = None
    """Responses decoded at once, over the whole mesh; as one ends, the next takes its slot. null:
    as many as fit into the memory, 32 for each data shard on a CPU."""
    prompts_at_once: MayChange[int | None] = None
    """Prompts that are prefilled at once, over the whole mesh. null: an eighth of the slots."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on TPU and GPU, float32 on CPU."""
    coordinator: OfStart[str | None] = None
    """host:port of process 0, where TPU pod or Slurm do not tell."""
    num_processes: OfStart[int | None] = None
    """Processes that evaluate together; goes with --coordinator."""
    process_id: OfStart[int | None] = None
    """Which of them this is, from 0; goes with --coordinator."""
    compilation_cache: OfStart[str] = "auto"
    """Where compiled programs are kept: a folder, `off`, or auto: JAX_COMPILATION_CACHE_DIR where
    it is set, else alphamed_jax/xla in the user's cache folder."""

    def __post_init__(self):
        for name in ("model", "adapter", "output", "responses", "compilation_cache"):
            if text := getattr(self, name):
                object.__setattr__(self, name, user_path(text, name))
        for name in ("benchmarks", "variants"):
            object.__setattr__(self, name, _separated(getattr(self, name)))
        self._check_subject()
        self._check_sampling()
        for name in ("limit", "max_new_tokens", "max_prompt_tokens", "slots", "prompts_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}: expected at least 1.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}: expected 0 to {2**32 - 1}.")
        if self.output and "://" in self.output:
            raise UserError(f"output is {self.output}: expected a folder of this machine.")
        if not self.compilation_cache or is_unset(self.compilation_cache):
            raise UserError(
                f"compilation_cache is {self.compilation_cache!r}: expected auto, a folder, or off."
            )

    def _check_subject(self) -> None:
        """What is evaluated is said, and said once."""
        if not self.model and not self.responses:
            raise UserError(
                "nothing to evaluate: --model FOLDER_OR_ID_OR_RUN asks a model, and --responses "
                "FILE --data NAME=FILE scores responses that were made elsewhere."
            )
        if self.model and self.responses:
            raise UserError("--model and --responses are two things to evaluate; give one of them.")
        if self.responses and not self.data:
            raise UserError("--responses needs the questions that they answer: --data NAME=FILE.")
        if not self.benchmarks and not self.data:
            raise UserError(
                "no questions: name --benchmarks, as medqa,medmcqa, or files, as --data medqa=FILE."
            )
        if self.adapter and (self.responses or self.baselines):
            raise UserError("--adapter goes with one --model, not with --responses or --baselines.")
        if self.baselines and self.responses:
            raise UserError("--baselines asks models; it does not go with --responses.")
        if self.baselines and self.prompt is not None:
            raise UserError(
                "--baselines asks by the plain prompt and by the training's; leave --prompt out."
            )

    def _check_sampling(self) -> None:
        """The distribution is one, and settings that it would not heed are refused."""
        if self.samples < 1:
            raise UserError(f"samples is {self.samples}: expected at least 1.")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature is {self.temperature}: expected a number from 0 on.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: expected a number in (0, 1].")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}: expected at least 0.")
        if self.temperature > 0:
            return
        if self.samples > 1:
            raise UserError(
                f"samples is {self.samples} at temperature 0, where all responses to a question "
                "are the same; give --temperature, as 0.6, or leave --samples out."
            )
        if self.top_p < 1 or self.top_k:
            raise UserError(
                "top_p and top_k change nothing at temperature 0, where the likeliest token is "
                "taken; give --temperature, or leave them out."
            )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0


def _separated(values: Sequence[str]) -> tuple[str, ...]:
    """Names that commas or blanks separate."""
    return tuple(name for value in values for name in value.replace(",", " ").split())


def parse(argv: Sequence[str], program: str, description: str) -> Settings:
    """Read a command line.

    Raises:
      UserError: an unknown flag (with the nearest known one), a value that is not of its kind, or
        settings that contradict each other.
    """
    # Elsewhere the last of two wins, as is usual; here it would silently drop a benchmark.
    for name in LISTS:
        if sum(argument.split("=")[0] == f"--{name}" for argument in argv) > 1:
            raise UserError(f"--{name} is given twice: name all after one, as --{name} A B.")
    return flags_of(Settings)(argv, program, description)
