"""Which settings make a configuration fit, each verified by compiling the phases that it changes.

Changes that only cost time come first: what is learned stays the same. Only then those that round
differently, and last another mesh of the same devices.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from alphamed_jax.compiled.arguments import Case, slots_of
from alphamed_jax.compiled.memory import sizes
from alphamed_jax.compiled.topology import Chip
from alphamed_jax.config import Config
from alphamed_jax.errors import UserError
from alphamed_jax.model.mesh import data_shards
from alphamed_jax.planning.case import phases_of
from alphamed_jax.planning.estimate import floor
from alphamed_jax.planning.fit import Held, failing, held, limit
from alphamed_jax.planning.measure import Measure
from alphamed_jax.planning.phase import PhaseCost

# Programs to compile for the search, beyond those of the plan itself.
MOST_COMPILES = 8
LAYOUT = ("layer_layout", "head_layout")
LEARNING = ("score", "update")
DECODING = ("refill", "fan_out", "decode", "grow")
# Those that need most memory first: where they do not fit, the others need not be compiled.
MEASURED_FIRST = ("update", "score", "decode", "grow", "refill", "fan_out")
MEASURED_FIRST += ("prefill", *LAYOUT, "reward")

# Setting -> the programs that it changes, and what it costs.
PROGRAMS = {
    "update.micro_batch": LEARNING,
    "update.remat": LEARNING,
    "update.logits_chunk": LEARNING,
    "rollout.slots": DECODING,
    "rollout.weights": (*LAYOUT, *DECODING),
}
PRICES = {
    "update.micro_batch": "the same gradient; weights are gathered for more micro-batches",
    "update.remat": "the same gradient; a second forward pass, a third more FLOPs",
    "update.logits_chunk": "the same gradient; more, smaller products for the logits",
    "rollout.slots": "the same samples; more decode steps, each reading the weights",
    "rollout.weights": "partial products travel at every decode step, and round differently",
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
    phases: dict[str, Held]
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


def learning_ladder(config: Config, rows: int) -> list[Changes]:
    """Settings of the update that need less and less memory."""
    update, rungs = config.update, []
    base: Changes = () if update.remat == "layer" else (Change("update.remat", "layer"),)
    if base:
        rungs.append(base)
    size = update.micro_batch
    while size > rows:
        size = max(size // 2 // rows * rows, rows)
        rungs.append((*base, Change("update.micro_batch", size)))
    if update.logits_chunk > 512:
        rungs.append((*(rungs[-1] if rungs else ()), Change("update.logits_chunk", 512)))
    return rungs


def decoding_ladder(case: Case) -> list[Changes]:
    """Numbers of slots that need less and less memory: down to an eighth of all responses."""
    rows, all_of_them = data_shards(case.mesh), case.work.prompts * case.work.group
    size, rungs = slots_of(case), []
    while size > max(rows, all_of_them // 8):
        size = max(size // 2 // rows * rows, rows)
        rungs.append((Change("rollout.slots", size),))
    return rungs


def bases(config: Config, mesh: tuple[int, int, int], failing: tuple[str, ...]) -> list[Changes]:
    """What the ladders start from, in the order in which it is tried.

    Args:
      mesh: replica, fsdp and tensor.
    """
    found: list[Changes] = [()]
    gathered = config.rollout.weights == "gathered"
    if gathered and not {*LAYOUT, *DECODING, "prefill"}.isdisjoint(failing):
        found.append((Change("rollout.weights", "sharded"),))
    replica, fsdp, tensor = mesh
    if fsdp % 2 == 0 and set(failing) - {"checkpoint"}:  # the state is split over all devices
        sizes = (replica, fsdp // 2, tensor * 2)
        found.append((Change("mesh", "x".join(map(str, sizes[1:] if replica == 1 else sizes))),))
    return found


def changed(changes: Changes, names: tuple[str, ...]) -> set[str]:
    """Of these programs, those that the changes make others."""
    if any(change.name == "mesh" for change in changes):
        return set(names)
    return {name for change in changes for name in PROGRAMS[change.name]} & set(names)


class _Spent(Exception):
    """No compile is left."""


class _Trials:
    """Programs measured and suggestions tried in one search."""

    def __init__(self, measure: Measure, chip: Chip, rounds: int, most: int):
        self.measure, self.chip, self.rounds, self.most = measure, chip, rounds, most
        self.spent = 0
        self.closest: Suggestion | None = None

    def cost(self, case: Case, name: str) -> PhaseCost:
        """Cost of a phase, unless too many were measured."""
        if self.spent == self.most:
            raise _Spent
        self.spent += 1
        return self.measure(case, name)

    def wrong(self, case: Case, costs: dict[str, PhaseCost]) -> set[str]:
        """Phases that do not fit."""
        return set(failing(held(case, costs, self.chip, self.rounds)))

    def note(self, changes: Changes, case: Case, costs: dict[str, PhaseCost]) -> bool:
        """Keep what comes closest; whether it fits."""
        phases = held(case, costs, self.chip, self.rounds)
        found = Suggestion(changes, not failing(phases), phases, self.spent)
        best = self.closest
        if best is None or (found.fits, -found.worst) > (best.fits, -best.worst):
            self.closest = found
        return found.fits


def _hopeless(case: Case, cost: PhaseCost, trial: Case, room: int) -> bool:
    """Whether an update of smaller micro-batches is still far too large: activations shrink with
    them, gradients do not."""
    known = sizes(case)
    fixed = 3 * known["weights"] + known["optimizer"] + known["batch"]
    share = trial.work.micro_batch / case.work.micro_batch
    return fixed + share * max(cost.peak - fixed, 0) > 1.1 * room


def search(
    config: Config,
    make_case: Callable[[Config], Case],
    costs: dict[str, PhaseCost],
    measure: Measure,
    chip: Chip,
    most: int = MOST_COMPILES,
) -> Suggestion | None:
    """Settings that fit where `config` does not, or those that come closest.

    Each trial compiles only the programs that its changes change, and none whose arrays alone are
    larger than the memory.

    Args:
      make_case: the case of a configuration; a `UserError` says that it cannot be.
      costs: those of the configuration as it is.
      most: programs to compile at most.

    Returns:
      None where no change was worth compiling.
    """
    trials = _Trials(measure, chip, config.rollout.max_rounds, most)
    case = make_case(config)
    replica, fsdp, tensor = case.mesh.shape.values()
    starts = bases(config, (replica, fsdp, tensor), tuple(trials.wrong(case, costs)))
    try:
        for base in starts:
            with contextlib.suppress(UserError):  # this mesh cuts heads, say
                if _attempt(config, base, make_case, costs, trials):
                    break
    except _Spent:
        pass
    return trials.closest and trials.closest._replace(compiles=trials.spent)


def _attempt(
    config: Config,
    base: Changes,
    make_case: Callable[[Config], Case],
    costs: dict[str, PhaseCost],
    trials: _Trials,
) -> bool:
    """Go down the ladders from `base` until all phases fit."""
    case = make_case(apply(config, base))
    room, chosen = limit(trials.chip), base
    if floor(case, trials.rounds)["checkpoint"] > room:
        return False
    now = {n: c for n, c in costs.items() if n not in changed(base, tuple(costs))}
    ladders = {
        (*LAYOUT, "prefill", "reward"): [],
        DECODING: decoding_ladder(case),
        LEARNING: learning_ladder(config, data_shards(case.mesh)),
    }
    for group, ladder in ladders.items():
        wrong = trials.wrong(case, now) & set(group)
        unknown = set(group) & set(phases_of(case)) - set(now)
        if not wrong | unknown:
            continue
        # Without a change of its own a group is tried where the base has changed its programs.
        rungs: list[Changes] = ladder if wrong else [(), *ladder]
        for rung in rungs:
            changes = (*chosen, *rung)
            trial = make_case(apply(config, changes))
            names = [name for name in MEASURED_FIRST if name in group and name in phases_of(trial)]
            least = floor(trial, trials.rounds)
            if any(least[name] > room for name in names):
                continue
            before = now.get("update") if group == LEARNING else None
            if before and rung != rungs[-1] and _hopeless(case, before, trial, room):
                continue
            there = {n: c for n, c in now.items() if n not in changed(rung, group)}
            for name in names:
                if name not in there:
                    there[name] = trials.cost(trial, name)
                    if name in trials.wrong(trial, there):
                        break
            trials.note(changes, trial, {**now, **there})
            if not trials.wrong(trial, there) & set(names):
                chosen, case, now = changes, trial, there
                break
        else:
            return False
    return trials.note(chosen, case, {n: c for n, c in now.items() if n in phases_of(case)})
