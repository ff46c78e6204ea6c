"""The settings of a scoring: one flat dataclass, every field of it a flag."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from alphamed_jax.config_io import flags_of
from alphamed_jax.config_marks import MayChange, OfProcess, OfStart
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.settings import Settings

LISTS = ("data", "data_revisions")
"""Settings that take several values, after one flag."""


@dataclass(frozen=True)
class ScoreSettings:
    """Which model scores which questions, and how it is asked."""

    model: OfProcess[str | None] = None
    """Hugging Face folder, hub id, output folder of a training run (its export is asked), or
    `quickstart`, the embedded model. Difficulty is meant for the model that will be trained."""
    model_revision: str | None = None
    """Branch, tag or commit of a hub id. null: the newest."""
    data: OfProcess[tuple[str, ...]] = ()
    """Questions as `alphamed train --data` takes them: NAME, NAME=FILE, or FILE in our own schema;
    several after one flag."""
    data_revisions: tuple[str, ...] = ()
    """NAME=REVISION: branch, tag or commit of a source that comes from the hub."""
    limit: int | None = None
    """Questions of each source, a sample drawn by --seed. null: all."""
    samples: int = 8
    """Responses to each question, the K of pass rates; 5 gives the levels of the paper."""
    prompt: OfProcess[str | None] = None
    """cot (step by step), plain (only the boxed letter), or a YAML file with the keys of the
    configuration's section `prompt`, or with that section. null: that of the training run where
    the model is one's export, else cot, as in training."""
    temperature: float = 1.0
    """Divides the logits."""
    top_p: float = 1.0
    """Sample from the fewest tokens that hold this share of the probability; 1 keeps all."""
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    max_new_tokens: int | None = None
    """Longer responses are cut, and count as truncated. null: rollout.max_new_tokens of the
    training run, else 2048."""
    max_prompt_tokens: int | None = None
    """Questions with longer prompts are not asked, and counted. null: prompt.max_tokens of the
    training run, else 4096."""
    seed: int = 0
    """Decides which questions --limit takes, and every sampled token."""
    output: OfStart[str | None] = None
    """Folder of the scores; null: scores/NAME, by the name of the model."""
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
    """Processes that score together; goes with --coordinator."""
    process_id: OfStart[int | None] = None
    """Which of them this is, from 0; goes with --coordinator."""
    compilation_cache: OfStart[str] = "auto"
    """Where compiled programs are kept: a folder, `off`, or auto: JAX_COMPILATION_CACHE_DIR where
    it is set, else alphamed_jax/xla in the user's cache folder."""

    def __post_init__(self):
        if not self.model:
            raise UserError("nothing to score with: --model FOLDER_OR_ID_OR_RUN.")
        if not self.data:
            raise UserError("no questions to score: give --data NAME, NAME=FILE or FILE.")
        if not self.temperature > 0:
            raise UserError(
                f"temperature is {self.temperature}: expected a number above 0; difficulty is told "
                "by responses that may differ."
            )
        as_evaluation = self.evaluation  # which checks what the two share
        for name in ("model", "output", "compilation_cache"):
            object.__setattr__(self, name, getattr(as_evaluation, name))

    @property
    def evaluation(self) -> Settings:
        """The settings of an evaluation that asks in the same way, for what the two share."""
        theirs = {field.name for field in fields(Settings)}
        mine = {field.name for field in fields(self)}
        return Settings(**{name: getattr(self, name) for name in sorted(mine & theirs)})


def read(argv: Sequence[str], program: str, description: str) -> ScoreSettings:
    """Read a command line.

    Raises:
      UserError: an unknown flag (with the nearest known one), a value that is not of its kind, or
        a list whose flag stands twice, of which the last would win.
    """
    for name in LISTS:
        flag = f"--{name.replace('_', '-')}"
        if sum(argument.split("=")[0].replace("_", "-") == flag for argument in argv) > 1:
            raise UserError(f"{flag} is given twice: name all after one, as {flag} A B.")
    return flags_of(ScoreSettings)(argv, program, description)
