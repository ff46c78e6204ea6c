"""Which settings make a configuration fit, each verified by compiling the phases that it changes.

Changes that only cost time come first: what is learned stays the same. Only then those that round
differently, and last another mesh of the same devices.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from alphamed_jax.compiled.topology import Chip
from alphamed_jax.config import Config
from alphamed_jax.errors import UserError
from alphamed_jax.planning.cost import Cost, estimated_cost
from alphamed_jax.planning.fit import PhaseMemory, failing, limit, memory_of
from alphamed_jax.planning.measure import Measure
from alphamed_jax.programs import PROGRAMS, planned_programs
from alphamed_jax.programs.planned import PlannedStep
from alphamed_jax.programs.record import (
    Program,
    checkpoint_parts,
    memory_parts,
    parts,
    resident_bytes,
)
from alphamed_jax.programs.update import UPDATE

# Programs to compile for the search, beyond those of the plan itself.
MOST_COMPILES = 8

# Setting -> what it costs.
PRICES = {
    "update.micro_batch": "the same gradient; weights are gathered for more micro-batches",
    "update.remat": "the same gradient; a second forward pass, a third more FLOPs",
    "update.logits_chunk": "the same gradient; more, smaller products for the logits",
    "rollout.slots": "the same samples; more decode steps, each reading the weights",
    "rollout.weights": "partial products travel at every decode step, and round differently",
    "update.mesh": "sums over the tensor axis round differently; more communication per layer",
    "mesh": "sums over the tensor axis round differently; more communication per layer",
}


class Change(NamedTuple):
    """A setting and its new value; `mesh` stands for itself."""

    name: str
    value: Any

    @property
    def flag(self) -> str:
        """As on the command line."""
        return f"--{self.name.replace('_', '-')} {self.value}"


Changes = tuple[Change, ...]


class Suggestion(NamedTuple):
    """Settings that were tried, and whether they fit."""

    changes: Changes
    fits: bool
    phases: dict[str, PhaseMemory]
    compiles: int
    """Programs compiled for the whole search."""

    @property
    def flags(self) -> str:
        """What to add to the command line."""
        return " ".join(change.flag for change in self.changes)

    @property
    def worst(self) -> int:
        """Bytes of the largest phase."""
        return max((there.total for there in self.phases.values()), default=0)


def apply(config: Config, changes: Changes) -> Config:
    """The configuration with these changes."""
    for name, value in changes:
        section, _, key = name.rpartition(".")
        if section:
            inner = dataclasses.replace(getattr(config, section), **{key: value})
            key, value = section, inner
        config = dataclasses.replace(config, **{key: value})
    return config


def update_ladder(config: Config, shards: int) -> list[Changes]:
    """Settings of the update that need less and less memory."""
    update, rungs = config.update, []
    base: Changes = () if update.remat == "layer" else (Change("update.remat", "layer"),)
    if base:
        rungs.append(base)
    size = update.micro_batch
    while size > shards:
        size = max(size // 2 // shards * shards, shards)
        rungs.append((*base, Change("update.micro_batch", size)))
    if update.logits_chunk > 512:
        rungs.append((*(rungs[-1] if rungs else ()), Change("update.logits_chunk", 512)))
    return rungs


def decoding_ladder(step: PlannedStep) -> list[Changes]:
    """Numbers of slots that need less and less memory: down to an eighth of all responses."""
    shards, size, rungs = step.data_shards, step.slots, []
    while size > max(shards, step.responses // 8):
        size = max(size // 2 // shards * shards, shards)
        rungs.append((Change("rollout.slots", size),))
    return rungs


def bases(config: Config, step: PlannedStep, failing: Iterable[Program]) -> list[Changes]:
    """What the ladders start from, in the order in which it is tried.

    Args:
      failing: programs that do not fit.
    """
    found: list[Changes] = [()]
    stages = {program.stage for program in failing}
    if config.rollout.weights == "gathered" and "rollout" in stages:
        found.append((Change("rollout.weights", "sharded"),))
    own = bool(config.update.mesh) and stages == {"update"}
    replica, fsdp, tensor = (step.update_mesh if own else step.mesh).shape.values()
    if fsdp % 2 == 0 and stages:  # the state is split over all devices
        sizes = (replica, fsdp // 2, tensor * 2)
        name = "x".join(map(str, sizes[1:] if replica == 1 else sizes))
        found.append((Change("update.mesh" if own else "mesh", name),))
    return found


def changed(
    programs: Iterable[Program], step: PlannedStep, other: PlannedStep
) -> tuple[Program, ...]:
    """The programs that another step has to compile: new ones, and those of other arguments."""
    return tuple(
        program
        for program in programs
        if program.used(other) and not (program.used(step) and program.same(step, other))
    )


class _Spent(Exception):
    """No compile is left."""


class _Trials:
    """Programs measured and suggestions tried in one search."""

    def __init__(self, measure: Measure, chip: Chip, most: int):
        self.measure, self.chip, self.most = measure, chip, most
        self.spent = 0
        self.closest: Suggestion | None = None

    def cost(self, program: Program, step: PlannedStep) -> Cost:
        """Cost of a program, unless too many were measured."""
        if self.spent == self.most:
            raise _Spent
        self.spent += 1
        return self.measure(program, step)

    def wrong(self, step: PlannedStep, costs: dict[Program, Cost]) -> set[Program]:
        """Programs that do not fit."""
        names = failing(memory_of(step, costs, self.chip))
        return {program for program in costs if program.name in names}

    def note(self, changes: Changes, step: PlannedStep, costs: dict[Program, Cost]) -> bool:
        """Keep what comes closest; whether it fits."""
        phases = memory_of(step, costs, self.chip)
        found = Suggestion(changes, not failing(phases), phases, self.spent)
        best = self.closest
        if best is None or (found.fits, -found.worst) > (best.fits, -best.worst):
            self.closest = found
        return found.fits


def _far_too_large(step: PlannedStep, trial: PlannedStep, cost: Cost, room: int) -> bool:
    """Whether an update of smaller micro-batches is still far too large: activations shrink with
    them, gradients do not."""
    known, learned = parts(step.state, step.batch), parts(step.learned.params)["weights"]
    fixed = known["weights"] + 2 * learned + known["optimizer"] + known["batch"]
    share = trial.shape.micro_batch / step.shape.micro_batch
    return fixed + share * max(cost.peak - fixed, 0) > 1.1 * room


def largest_first(programs: Iterable[Program], step: PlannedStep) -> list[Program]:
    """By estimated memory: where those that need most do not fit, the others are not compiled."""

    def size(program: Program) -> int:
        return estimated_cost(program, step).peak + resident_bytes(program, step)

    return sorted(programs, key=size, reverse=True)


def search(
    config: Config,
    make_step: Callable[[Config], PlannedStep],
    costs: dict[Program, Cost],
    measure: Measure,
    chip: Chip,
    most: int = MOST_COMPILES,
    programs: Sequence[Program] = PROGRAMS,
) -> Suggestion | None:
    """Settings that fit where `config` does not, or those that come closest.

    Each trial compiles only the programs that its changes change, and none whose arrays alone are
    larger than the memory.

    Args:
      make_step: the step of a configuration; a `UserError` says that it cannot be.
      costs: those of the configuration as it is.
      most: programs to compile at most.
      programs: those that there are.

    Returns:
      None where no change was worth compiling.
    """
    trials = _Trials(measure, chip, most)
    step = make_step(config)
    starts = bases(config, step, trials.wrong(step, costs))
    try:
        for base in starts:
            with contextlib.suppress(UserError):  # this mesh cuts heads, say
                if _attempt(config, base, make_step, costs, trials, programs):
                    break
    except _Spent:
        pass
    return trials.closest and trials.closest._replace(compiles=trials.spent)


def _attempt(
    config: Config,
    base: Changes,
    make_step: Callable[[Config], PlannedStep],
    costs: dict[Program, Cost],
    trials: _Trials,
    programs: Sequence[Program],
) -> bool:
    """Go down the ladders from `base` until all programs fit."""
    before, step = make_step(config), make_step(apply(config, base))
    room, chosen = limit(trials.chip), base
    if sum(checkpoint_parts(step).values()) > room:
        return False
    anew = changed(programs, before, step)
    now = {program: cost for program, cost in costs.items() if program not in anew}
    for stage, ladder in _stages(config, step, make_step, base, programs):
        wrong = trials.wrong(step, now) & set(stage)
        unknown = set(stage) & set(planned_programs(step, programs)) - set(now)
        if not wrong | unknown:
            continue
        # Without a change of its own a group is tried where the base has changed its programs.
        rungs: list[Changes] = ladder if wrong else [(), *ladder]
        for rung in rungs:
            changes = (*chosen, *rung)
            trial = make_step(apply(config, changes))
            used = [p for p in planned_programs(trial, programs) if p in stage]
            if any(sum(memory_parts(program, trial).values()) > room for program in used):
                continue
            known = now.get(UPDATE) if UPDATE in stage else None
            if known and rung != rungs[-1] and _far_too_large(step, trial, known, room):
                continue
            kept = {p: c for p, c in now.items() if p not in changed(stage, step, trial)}
            for program in largest_first(used, trial):
                if program not in kept:
                    kept[program] = trials.cost(program, trial)
                    if program in trials.wrong(trial, kept):
                        break
            trials.note(changes, trial, {**now, **kept})
            if not trials.wrong(trial, kept) & set(used):
                chosen, step, now = changes, trial, kept
                break
        else:
            return False
    last = planned_programs(step, programs)
    return trials.note(chosen, step, {p: c for p, c in now.items() if p in last})


def _stages(
    config: Config,
    step: PlannedStep,
    make_step: Callable[[Config], PlannedStep],
    base: Changes,
    programs: Sequence[Program],
) -> list[tuple[tuple[Program, ...], list[Changes]]]:
    """Programs with the ladder that changes them; first those that none does."""
    found: list[tuple[tuple[Program, ...], list[Changes]]] = []
    free = [program for program in programs if program.planned]
    for ladder in (decoding_ladder(step), update_ladder(config, step.updating.data_shards)):
        end = make_step(apply(config, (*base, *ladder[-1]))) if ladder else step
        moved = changed(free, step, end)
        found.append((tuple(program for program in free if program in moved), ladder))
        free = [program for program in free if program not in moved]
    return [(tuple(free), []), *found]
