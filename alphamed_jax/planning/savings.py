"""What settings of memory save: the arrays of a step beside those of the same with the default."""

import operator
from collections.abc import Callable
from typing import NamedTuple

from alphamed_jax.config import Config
from alphamed_jax.planning.suggest import Change, apply
from alphamed_jax.planning.tables import COLUMNS, gib
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import parts
from alphamed_jax.programs.rollout import needed_decode_bytes

SETTINGS = ("optimizer.moments", "rollout.weights_dtype", "rollout.cache_dtype")
"""Those that change what lies on the devices from program to program."""


class Saving(NamedTuple):
    """What a setting saves on each device."""

    setting: str
    """Name and value, as `optimizer.moments bfloat16`."""
    kinds: dict[str, int]
    """Bytes by kind of memory, where there are fewer; see `programs.record.KINDS`."""
    read: int = 0
    """Bytes that each decode step reads less."""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.kinds.values())


def held(step: PlannedStep) -> dict[str, int]:
    """Bytes of each kind that a step has arrays of, each counted once."""
    prompts = step.prompt_caches, *step.slot_prompts
    return parts(step.state, step.decode_weights, step.decode_state, *prompts)


def savings(config: Config, make_step: Callable[[Config], PlannedStep]) -> list[Saving]:
    """What each setting of memory that is not at its default saves."""
    found, step = [], make_step(config)
    here = held(step)
    for name in SETTINGS:
        value, plain = operator.attrgetter(name)(config), operator.attrgetter(name)(Config())
        if value != plain:
            other = make_step(apply(config, (Change(name, plain),)))
            there = held(other)
            kinds = {kind: size - here[kind] for kind, size in there.items() if size > here[kind]}
            read = sum(needed_decode_bytes(other)) - sum(needed_decode_bytes(step))
            found.append(Saving(f"{name} {value}", kinds, read))
    return found


def savings_text(found: list[Saving]) -> list[str]:
    """A line each."""

    def line(saving: Saving) -> str:
        kinds = ", ".join(f"{COLUMNS[kind]} {gib(size)}" for kind, size in saving.kinds.items())
        read = f", and a decode step {gib(saving.read)} GiB of reading" if saving.read else ""
        return f"{saving.setting} saves {gib(saving.total)} GiB per chip ({kinds}){read}."

    return [line(saving) for saving in found]
