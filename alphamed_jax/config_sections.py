"""The sections of the configuration: what a step samples, learns, evaluates and shows.

The paper gives the algorithm and the data; it does not give batch sizes, rollouts, learning rate,
KL, lengths or prompt wording. Every number below is therefore our choice, with its reason.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from alphamed_jax.config_marks import MayChange, OfStart
from alphamed_jax.errors import UserError


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
    shuffle_options: bool = True
    """In training, put the options in another order each time a question is drawn, so that no
    letter is right more often than others. Evaluation asks questions as they were published."""

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
    """Divides the logits; 1 samples from the policy itself."""
    top_p: float = 1.0
    """Sample from the fewest tokens that hold this share of the probability; 1 keeps all."""
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    max_rounds: int = 1
    """Rounds of `prompts` fresh questions that a step may sample until so many groups are effective
    (DAPO's dynamic sampling). 1: a single one, as its cost is known beforehand."""
    weights: MayChange[Literal["gathered", "sharded"]] = "gathered"
    """gathered: while decoding, each data shard of the mesh holds all weights in the compute dtype,
    split over `tensor` alone. sharded: over `fsdp` too, for models whose copy would not fit; then
    partial products travel at each step."""
    weights_dtype: Literal["compute", "int8"] = "compute"
    """Of the matrices that decoding reads at every step. compute: as the update computes, so that
    what is sampled is the policy. int8: half the bytes of bfloat16, with a scale for each output
    channel, made anew of the policy for each rollout; needs loss.tis_cap."""
    cache_dtype: Literal["compute", "int8"] = "compute"
    """Of the keys and values that decoding keeps. int8: half the bytes of bfloat16, and so room for
    twice as many responses at once, with a scale for each head and token; needs loss.tis_cap."""
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
                "equal and no group is effective; it must be a number above 0."
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"rollout.top_p is {self.top_p}: expected a number in (0, 1].")
        _at_least(0, rollout_top_k=self.top_k)
        if self.slots is not None:
            _at_least(1, rollout_slots=self.slots)

    @property
    def rounded(self) -> bool:
        """Whether responses are drawn from a policy in 8 bits, and so from another."""
        return "int8" in (self.weights_dtype, self.cache_dtype)

    def exact(self) -> "RolloutConfig":
        """The same, drawn from the policy as it is."""
        return dataclasses.replace(self, weights_dtype="compute", cache_dtype="compute")


@dataclass(frozen=True)
class RewardConfig:
    """Signals beside the letter, all off: the paper's reward is 1 or 0 by the letter alone. Whether
    a group is effective is judged by the letter whatever is set here."""

    overlong_cache: int | None = None
    """DAPO's soft overlong punishment: in the last so many tokens before rollout.max_new_tokens the
    reward falls by up to 1. null: none."""
    length_penalty: float = 0.0
    """Share of its reward, below 1, that a right response may lose for its length among the right
    ones of its group (Arora and Zanette 2025). 0: none."""
    skip_truncated: bool = False
    """Leave truncated responses out of the loss (DAPO's overlong filtering)."""

    def __post_init__(self):
        if self.overlong_cache is not None:
            _at_least(1, reward_overlong_cache=self.overlong_cache)
        if not 0 <= self.length_penalty < 1:
            raise UserError(
                f"reward.length_penalty is {self.length_penalty}: expected a number in [0, 1), so "
                "that a long right response is worth more than a wrong one."
            )

    @property
    def shapes(self) -> bool:
        """Whether anything is added to the binary reward."""
        return self.overlong_cache is not None or self.length_penalty > 0


@dataclass(frozen=True)
class LossConfig:
    """The GRPO objective."""

    advantage: Literal["std", "none", "leave_one_out"] = "std"
    """std: (r - group mean) / group std; none: r - group mean; leave_one_out: RLOO."""
    variant: Literal["clip", "cispo"] = "clip"
    """clip: tokens whose ratio is out of bounds get no gradient (PPO). cispo: no token is left out;
    each is weighed by its clipped ratio (MiniMax-M1), there with clip_low 1, which bounds nothing.
    The same gradient at one update a step; it differs where updates follow on one rollout."""
    clip_low: float = 0.2
    """Ratios are clipped at 1 - clip_low from below. clip: below it no gradient where the advantage
    is negative. cispo: the least weight."""
    clip_high: float = 0.2
    """Ratios are clipped at 1 + clip_high from above. clip: above it no gradient where the
    advantage is positive. cispo: the largest weight."""
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
        if self.dual_clip is not None and self.variant == "cispo":
            raise UserError("loss.dual_clip bounds the loss of loss.variant clip; take it out.")
        if self.tis_cap is not None:
            _at_least(1, loss_tis_cap=self.tis_cap)
        if self.constant_length is not None:
            _at_least(1, loss_constant_length=self.constant_length)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW through optax.

    A batch without any effective group has a gradient of zero and is an update like any other: the
    weights move on by what Adam remembers of earlier batches, and by weight decay. To stand still
    instead would make it another thing than a batch with next to none, and leaving groups out of
    the forward pass a matter of more than cost.
    """

    learning_rate: float = 1e-6
    """The usual order of magnitude for full-parameter RL of instruct models."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up. linear and cosine would reach 0 one update after the last."""
    warmup_updates: int = 10
    """Updates over which the rate rises to its peak."""
    b1: float = 0.9
    """Adam's decay of the gradient's mean."""
    b2: float = 0.95
    """Adam's decay of the gradient's square."""
    eps: float = 1e-8
    """Adam's guard against small denominators."""
    weight_decay: float = 0.0
    """AdamW's, times the learning rate."""
    max_grad_norm: float = 1.0
    """A longer gradient is scaled down to this norm."""
    moments: Literal["float32", "bfloat16", "factored"] = "float32"
    """How Adam's moments are kept between updates. float32: exactly, 8 bytes a weight, the default
    as it adds nothing to what is published. bfloat16: 4 bytes, each rounded once an update.
    factored: of the squares row and column means alone (Adafactor), of the mean bfloat16, or
    nothing where b1 is 0: 2 bytes or next to none."""

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
        rounded = {"float32": (), "bfloat16": ("b1", "b2"), "factored": ("b1",)}[self.moments]
        for name in rounded:
            if getattr(self, name) > 0.99:
                raise UserError(
                    f"optimizer.{name} is {getattr(self, name)}: in bfloat16 a decay this slow is "
                    "rounded away; take at most 0.99, or optimizer.moments float32."
                )


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021): the model stays as it was read, in the compute dtype, and
    what learns are two thin float32 matrices beside each target. The numbers are those at which
    adapters learnt as well as full training, reinforcement learning included (Schulman et al.
    2025, "LoRA Without Regret")."""

    rank: int = 0
    """Width of the adapters (r); a policy gradient brings so little that 1 to 32 are enough. 0: no
    adapters, all weights are trained."""
    alpha: float = 32.0
    """The adapters' product counts alpha / rank times, so that the best learning rate hardly
    depends on the rank."""
    targets: tuple[str, ...] = ("all",)
    """Linear layers with an adapter: all (but the head), attention, feed_forward, or names, as q v.
    All learn better than attention alone at the same number of parameters."""
    learning_rate_factor: float = 10.0
    """Adapters learn at optimizer.learning_rate times this: their best rate is about ten times that
    of full training, whatever the rank, so that a configuration serves both."""

    def __post_init__(self):
        _at_least(0, lora_rank=self.rank)
        for name in ("alpha", "learning_rate_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(
                    f"lora.{name} is {getattr(self, name)}: it must be a number above 0."
                )
        names = tuple(n for one in self.targets for n in one.replace(",", " ").split())
        object.__setattr__(self, "targets", names)


@dataclass(frozen=True)
class UpdateConfig:
    """How a batch becomes updates. Below `epochs`, nothing changes the gradient but for rounding:
    its last digits in float32, some per cent of its length in bfloat16 (docs/numerics.md)."""

    mini_batches: int = 1
    """Optimiser updates per pass over the batch."""
    epochs: int = 1
    """Passes over the batch."""
    mesh: MayChange[str | None] = None
    """Another mesh of the same devices for what learns, as 16x4 beside mesh 8x8: decoding is fast
    where weights are split over tensor, an update where rows are split. Between the two all weights
    are sent once a step, in the compute dtype. null: the mesh of the run."""
    micro_batch: MayChange[int] = 64
    """Sequences in memory at once, over all data shards of the mesh."""
    skip_constant_groups: bool = True
    """Leave ineffective groups out of the forward pass (only when kl_coef is 0)."""
    remat: MayChange[Literal["none", "layer", "dots", "offload"]] = "layer"
    """What the backward pass recomputes: nothing, each layer, or all but matrix products. offload:
    as dots, but these wait in the host's memory; quicker than layer only where the link to the
    host is as fast as docs/performance.md says."""
    logits_chunk: MayChange[int] = 2048
    """Tokens per data shard of the mesh whose logits exist at once; rounding in float32 aside, the
    gradient is the same."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on TPU and GPU, float32 on CPU. float32 is float32 everywhere, at a multiple
    of the price on TPUs and GPUs. What learns is always float32."""
    attention: MayChange[Literal["auto", "dense", "splash", "cudnn"]] = "auto"
    """Of training and prefill. auto: splash (Pallas) on TPU, cudnn on GPU where compute_dtype and
    head width allow it, else dense."""

    def __post_init__(self):
        _at_least(1, update_mini_batches=self.mini_batches, update_epochs=self.epochs)
        _at_least(1, update_micro_batch=self.micro_batch, update_logits_chunk=self.logits_chunk)


@dataclass(frozen=True)
class CurriculumConfig:
    """How often a question is drawn, by the running mean of its reward. Off: each once an epoch."""

    pools: bool = False
    """Draw by difficulty: hard, normal, easy and unseen questions as often as is set below."""
    hard: float = 0.5
    """How often a hard question is drawn, relative to those of the other pools; 0: never."""
    normal: float = 1.0
    """How often one is drawn that is neither hard nor easy."""
    easy: float = 0.25
    """How often an easy one is drawn."""
    unseen: float = 1.0
    """How often one is drawn that was not drawn yet."""
    hard_below: float = 0.15
    """Mean reward below which a question is hard: of 8 responses one right one is."""
    easy_above: float = 0.85
    """Mean reward above which it is easy."""
    newest: float = 0.5
    """Weight of the newest draw in the running mean; 1 forgets all before."""

    def __post_init__(self):
        _at_least(0, curriculum_hard=self.hard, curriculum_normal=self.normal)
        _at_least(0, curriculum_easy=self.easy, curriculum_unseen=self.unseen)
        for name in ("hard_below", "easy_above"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"curriculum.{name} is {getattr(self, name)}: expected a reward, 0 to 1."
                )
        if self.hard_below > self.easy_above:
            raise UserError(
                f"curriculum.hard_below ({self.hard_below}) is above curriculum.easy_above "
                f"({self.easy_above}): a question would be both."
            )
        if not 0 < self.newest <= 1:
            raise UserError(f"curriculum.newest is {self.newest}: expected a number in (0, 1].")


@dataclass(frozen=True)
class EvalConfig:
    """In-training evaluation on held-out questions and benchmarks, before the first step and at the
    end; what it samples has noise of its own, the same each time."""

    questions: int = 200
    """Held-out questions; taken out of the training set where a source has no split of its own."""
    samples: MayChange[int] = 1
    """Sampled responses per question, beside the greedy one."""
    every: MayChange[int] = 0
    """Also every so many steps; 0: only at the start and the end."""
    benchmarks: MayChange[tuple[str, ...]] = ()
    """Benchmarks to evaluate, too, as `alphamed evaluate --benchmarks` has them: names or names of
    variants, with commas or blanks between them."""
    data: OfStart[tuple[str, ...]] = ()
    """NAME=FILE: rows of a benchmark in a file instead of the hub; asked even where `benchmarks`
    does not name it."""
    limit: MayChange[int | None] = 200
    """Questions of each benchmark, a sample drawn by the seed, so that training does not wait long.
    null: all."""
    best: MayChange[str] = "auto"
    """What the best step is told by, whose weights are kept as `export-best`: sampled accuracy on
    the `heldout` questions or on a benchmark, by the name of its variant, or `macro`, the mean over
    the benchmarks. `none` keeps none. auto: held-out questions where there are any, else macro."""
    patience: MayChange[int] = 0
    """End the run after so many evaluations in a row without a better one; 0: never."""

    @property
    def asks(self) -> bool:
        """Whether there is anything to evaluate."""
        return bool(self.questions or self.benchmarks or self.data)

    def due(self, step: int, steps: int) -> bool:
        """Whether step `step` of `steps` is evaluated."""
        return step == steps or bool(self.every and step % self.every == 0)

    def __post_init__(self):
        _at_least(0, eval_questions=self.questions, eval_every=self.every)
        _at_least(1, eval_samples=self.samples)
        _at_least(0, eval_patience=self.patience)
        if self.limit is not None:
            _at_least(1, eval_limit=self.limit)
        names = tuple(n for one in self.benchmarks for n in one.replace(",", " ").split())
        object.__setattr__(self, "benchmarks", names)
        if self.patience and not self.every:
            raise UserError(
                f"eval.patience is {self.patience}: it counts evaluations while training goes on, "
                "so it needs eval.every."
            )
        if self.patience and self.best == "none":
            raise UserError("eval.patience needs a best step, and eval.best is none.")


@dataclass(frozen=True)
class LogConfig:
    """What is shown and kept."""

    samples: MayChange[int] = 4
    """Rollouts per step written to samples.jsonl."""
    table_every: MayChange[int] = 10
    """Steps between two tables of responses on the terminal; 0: none."""

    def __post_init__(self):
        _at_least(0, log_samples=self.samples, log_table_every=self.table_every)
