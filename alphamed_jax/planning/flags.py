"""The command line of the planner: its own flags, and every flag of training beside them."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from alphamed_jax.config import Config, parse_config
from alphamed_jax.config_io import flag_names, parse_flags
from alphamed_jax.errors import UserError, nearest

ANY_MODEL = "any"
"""Model of the configuration where --suggest asks for all that are known."""


@dataclass(frozen=True)
class PlanFlags:
    """What to plan for, and what to assume. All figures are per chip."""

    topology: str = ""
    """Devices: v4:2x2x2, v5e:8x8, v5p:4x4x4, v6e:2x4 (the programs of training are compiled for
    them, which takes minutes), or h100:8, a100:8x8, cpu:8 (an estimate from shapes, in seconds)."""
    prompt_tokens: int | None = None
    """Longest prompt of a batch; null: prompt.max_tokens, for which the memory must suffice."""
    response_lengths: tuple[int, ...] = ()
    """Mean lengths of responses to give times for, in tokens, as 256 512 1024; without: a
    quarter, a half and all of rollout.max_new_tokens."""
    effective: float = 0.5
    """Share of effective groups, the only ones that are trained on; it falls as a policy
    learns. A round number of ours."""
    questions: int = 10178
    """Questions of an epoch; MedQA has 10,178 to train on."""
    peak_flops: float | None = None
    """FLOP/s of bf16 matrix products, as 197e12; null: the chip's data sheet."""
    hbm_gb: float | None = None
    """GiB of memory that programs may use; null: what libtpu gives them, or JAX's pool of a GPU
    (XLA_CLIENT_MEM_FRACTION, by default 0.75 of the card)."""
    hbm_gbps: float | None = None
    """GB/s of memory; null: the chip's data sheet."""
    ici_gbps: float | None = None
    """GB/s that a chip sends along one axis of the mesh; null: the chip's data sheet."""
    suggest: str = ""
    """Devices, as --topology names them: what can be trained there? For each known model, or the
    one that --model or --config names, and for all weights and adapters: the quickest settings
    that fit. Takes minutes for each on TPUs, which --estimate saves."""
    estimate: bool = False
    """From shapes alone, also for TPUs: in seconds, and without libtpu."""
    search: bool = True
    """Look for settings that fit where these do not, by compiling them."""
    scaling: bool = False
    """Compile the step for 16, 64 and 256 chips of this generation with the same work per chip, the
    tensor axis of --mesh and the fsdp axis grown, and print a table in Markdown."""
    json: bool = False
    """End with one JSON object on a line of its own."""
    check: bool = False
    """Exit with status 1 where it does not fit; else a plan that could be made exits with 0."""

    def __post_init__(self):
        names = ("peak_flops", "hbm_gb", "hbm_gbps", "ici_gbps", "prompt_tokens", "questions")
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(
                    f"--{name.replace('_', '-')} is {value}: expected a number above 0."
                )
        if any(length < 1 for length in self.response_lengths):
            raise UserError("--response-lengths: expected lengths of at least 1 token.")
        if not 0 <= self.effective <= 1:
            raise UserError(f"--effective is {self.effective}: expected a share from 0 to 1.")


@dataclass(frozen=True)
class _Both:
    """For --help."""

    plan: Annotated[PlanFlags, tyro.conf.arg(name="")] = PlanFlags()
    train: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


def _plain(argument: str) -> str:
    """A flag's name as `flag_names` has it: --update.no-skip-x=1 is --update.skip-x."""
    name = argument.split("=")[0].replace("_", "-")
    return name.replace("--no-", "--").replace(".no-", ".")


def parse(argv: Sequence[str], program: str, description: str) -> tuple[PlanFlags, Config]:
    """Read a command line; `--config` and every other flag of training mean what they do there.

    Prints help and exits where it is asked for.

    Raises:
      UserError: an unknown flag (with the nearest known one), a value that is not of its kind, not
        one of --topology and --suggest, or a response longer than rollout.max_new_tokens.
    """
    if not {"-h", "--help"}.isdisjoint(argv):
        parse_flags(["--help"], program, description, _Both())
        sys.exit(0)
    plan, rest = parse_flags(argv, program, description, PlanFlags())
    known = flag_names(PlanFlags) + flag_names(Config)
    for argument in rest:
        if argument.startswith("--") and _plain(argument) not in known:
            raise UserError(f"unknown argument {argument!r}.{nearest(argument, known)}")
    any_model = {"--model", "--config"}.isdisjoint(argument.split("=")[0] for argument in rest)
    if plan.suggest and any_model:  # what they would be without the quickstart's small sizes
        rest = ["--model", ANY_MODEL, *rest]
    config = parse_config(rest, program, description)
    if bool(plan.topology) == bool(plan.suggest):
        raise UserError(
            "name the devices to plan for, as --topology v5e:8x8, or ask what can be trained on "
            "some, as --suggest v5e:2x4 (see --help)."
        )
    most = config.rollout.max_new_tokens
    if any(length > most for length in plan.response_lengths):
        raise UserError(
            f"--response-lengths {max(plan.response_lengths)} is above rollout.max_new_tokens "
            f"({most}): raise that too, as --rollout.max-new-tokens {max(plan.response_lengths)}."
        )
    if plan.prompt_tokens and plan.prompt_tokens > config.prompt.max_tokens:
        raise UserError(
            f"--prompt-tokens {plan.prompt_tokens} is above prompt.max_tokens "
            f"({config.prompt.max_tokens}), beyond which training drops prompts."
        )
    return plan, config


def mean_lengths(plan: PlanFlags, config: Config) -> tuple[int, ...]:
    """Mean response lengths to give times for, shortest first."""
    most = config.rollout.max_new_tokens
    given = plan.response_lengths or (most // 4, most // 2, most)
    return tuple(sorted({max(length, 1) for length in given}))
