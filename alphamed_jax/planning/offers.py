"""What a machine can train: for each model and way of training it, the quickest settings that fit.

Settings are tried by estimates from shapes, which take a part of a second each. What comes out is
then planned in full: compiled, where there is a compiler for the devices.
"""

import dataclasses
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from alphamed_jax.config import Config
from alphamed_jax.errors import UserError
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import data_shards
from alphamed_jax.model.shapes import KNOWN
from alphamed_jax.planning import tables
from alphamed_jax.planning.cost import estimated_cost
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.expected import Expected, expect
from alphamed_jax.planning.fit import PhaseMemory, failing, limit, memory_of
from alphamed_jax.planning.flags import ANY_MODEL, PlanFlags, mean_lengths
from alphamed_jax.planning.measure import measure_all
from alphamed_jax.planning.result import Plan, make_plan
from alphamed_jax.planning.shape import model_shape
from alphamed_jax.planning.step import planned_step
from alphamed_jax.planning.suggest import PRICES, Change, Changes, apply
from alphamed_jax.programs import planned_programs
from alphamed_jax.programs.record import checkpoint_parts
from alphamed_jax.runtime.streams import say

RANK = 16
"""Of the adapters, where the configuration has none."""
USUAL_CAP = 2.0
"""Of truncated importance weights, where the configuration has none."""
LARGEST_MICRO_BATCH = 256
MOST_PLANS = 3
"""Plans of a model in full: the compiler may need more memory than was estimated."""
MOMENTS: Changes = (Change("optimizer.moments", "bfloat16"),)
EIGHT_BITS: Changes = (
    Change("rollout.weights_dtype", "int8"),
    Change("rollout.cache_dtype", "int8"),
)

COSTLY = {name: PRICES[name] for name in ("rollout.slots", "rollout.weights")} | {
    "optimizer.moments": "Adam's averages are rounded once an update",
    "rollout.weights_dtype": "responses are drawn from a rounded policy, for which loss.tis_cap "
    "makes up as far as it goes",
    "rollout.cache_dtype": "the same",
}
"""Settings that have a price, and what it is; the others only suit these devices or do not."""


class Offer(NamedTuple):
    """A model, a way of training it, and whether it fits."""

    model: str
    adapters: bool
    """Whether low-rank adapters learn, or all weights."""
    changes: Changes = ()
    """The settings found, beside those that were given."""
    plan: Plan | None = None
    """With them; None: nothing fits by the estimates."""

    @property
    def fits(self) -> bool:
        """Whether it can be trained there."""
        return self.plan is not None and self.plan.fits

    @property
    def flags(self) -> str:
        """What to add to the command line."""
        return " ".join(change.flag for change in (Change("model", self.model), *self.changes))


class _Tried(NamedTuple):
    """Settings that fit by the estimates, of the whole step or a part of it."""

    changes: Changes
    seconds: float
    bytes: int


def meshes(chips: int) -> list[str]:
    """Ways to lay out so many chips as fsdp x tensor."""
    return [f"{chips // tensor}x{tensor}" for tensor in range(1, chips + 1) if chips % tensor == 0]


def sampling_rungs(responses: int, shards: int) -> Iterator[list[Changes]]:
    """For each way to keep the weights, numbers of slots from the quickest to the leanest."""
    sizes = [responses // 2**n for n in range(1, 7)]
    slots = [
        (Change("rollout.slots", size // shards * shards),) for size in sizes if size >= shards
    ]
    for weights in ("gathered", "sharded"):
        kept = (Change("rollout.weights", weights),)
        yield [kept, *(kept + some for some in slots)]


def update_rungs(responses: int, shards: int) -> Iterator[list[Changes]]:
    """For each way to recompute, sizes of micro-batches from the quickest to the leanest."""
    sizes = [LARGEST_MICRO_BATCH // 2**n for n in range(9)]
    for remat in ("dots", "layer"):
        yield [
            (Change("update.remat", remat), Change("update.micro_batch", size))
            for size in sizes
            if shards <= size <= responses
        ]


@dataclass(frozen=True)
class _Search:
    """Settings of one model on one mesh, tried by estimates."""

    config: Config
    model: ModelConfig
    flags: PlanFlags
    share: float
    """Of the memory that is there, what the estimates may use."""

    def tried(self, changes: Changes, stages: Iterable[str]) -> _Tried | None:
        """Memory and time of the programs of these stages; None: they do not fit."""
        config = apply(self.config, changes)
        devices = devices_for(self.flags.suggest, config.mesh, self.flags)
        chip = devices.chip._replace(memory=self.share * devices.chip.memory)
        step = planned_step(config, self.model, devices, self.flags.prompt_tokens)
        if sum(checkpoint_parts(step).values()) > limit(chip):
            return None
        programs = [program for program in planned_programs(step) if program.stage in stages]
        costs = measure_all(programs, step, estimated_cost)
        phases = memory_of(step, costs, chip)
        if failing(phases):
            return None
        mean, questions = usual_length(self.flags, config), self.flags.questions
        found = expect(
            step, config, costs, chip, mean, effective=self.flags.effective, questions=questions
        )
        return _Tried(changes, found.step, most_bytes(phases))

    def quickest(self, ladders: Iterable[list[Changes]], stages: Iterable[str]) -> _Tried | None:
        """Of each ladder the last before times get longer, and of these the quickest."""
        best: _Tried | None = None
        for ladder in ladders:
            before: _Tried | None = None
            for rung in ladder:
                tried = self.tried(rung, stages)
                if before and (tried is None or tried.seconds >= before.seconds):
                    break
                before = tried
            if before and (best is None or before.seconds < best.seconds):
                best = before
        return best


def usual_length(flags: PlanFlags, config: Config) -> int:
    """Mean tokens of a response that times are given for: the middle one of a plan's."""
    lengths = mean_lengths(flags, config)
    return lengths[len(lengths) // 2]


def usual(plan: Plan, flags: PlanFlags) -> Expected:
    """A plan's step for that length."""
    length = usual_length(flags, plan.config)
    return next(expected for expected in plan.expected if expected.mean == length)


def most_bytes(phases: dict[str, PhaseMemory]) -> int:
    """Bytes of the phase that needs most."""
    return max((there.total for there in phases.values()), default=0)


def _on_mesh(search: _Search) -> _Tried | None:
    """The quickest settings on the mesh of the configuration."""
    shards = data_shards(devices_for(search.flags.suggest, search.config.mesh, search.flags).mesh)
    rollout = search.config.rollout
    responses = rollout.prompts * rollout.group_size
    # What the other half has does not matter to a half, but has to be possible.
    small = (Change("update.micro_batch", shards),)
    search = dataclasses.replace(search, config=apply(search.config, small))
    update = search.quickest(update_rungs(responses, shards), ("update",))
    sampling = update and search.quickest(sampling_rungs(responses, shards), ("rollout", "reward"))
    if not (update and sampling):
        return None
    return _Tried(
        (*sampling.changes, *update.changes),
        sampling.seconds + update.seconds,
        max(sampling.bytes, update.bytes),
    )


def leaner(config: Config) -> list[Changes]:
    """What changes more than time: the next only where nothing fits with those before."""
    capped = () if config.loss.tis_cap else (Change("loss.tis_cap", USUAL_CAP),)
    rounded = (*capped, *EIGHT_BITS)
    # The moments of adapters take next to nothing.
    return [(), rounded] if config.lora.rank else [(), MOMENTS, rounded, (*MOMENTS, *rounded)]


def chips_of(flags: PlanFlags) -> int:
    """How many there are.

    Raises:
      UserError: unknown devices.
    """
    estimated = dataclasses.replace(flags, estimate=True)
    return devices_for(flags.suggest, "auto", estimated).mesh.size


def quickest(
    config: Config, model: ModelConfig, flags: PlanFlags, share: float = 1.0
) -> _Tried | None:
    """The mesh and settings of the shortest step that fits by the estimates; None: there are none.

    Args:
      share: of the memory that is there, what they may use.
    """
    estimated = dataclasses.replace(flags, estimate=True)
    for settings in leaner(config):
        found = []
        for mesh in meshes(chips_of(flags)):
            changes = (Change("mesh", mesh), *settings)
            here = apply(config, changes)
            try:
                best = _on_mesh(_Search(here, model, estimated, share))
            except UserError:  # this mesh cuts heads, say
                continue
            if best:
                found.append(best._replace(changes=(*changes, *best.changes)))
        if found:
            return min(found, key=operator.attrgetter("seconds"))
    return None


def offer(flags: PlanFlags, config: Config, model: ModelConfig) -> Offer:
    """The quickest settings with which a configuration fits, planned in full."""
    adapters, share = bool(config.lora.rank), 1.0
    best = Offer(config.model, adapters)
    for _ in range(MOST_PLANS):
        found = quickest(config, model, flags, share)
        if found is None:
            break
        chosen = apply(config, found.changes)
        devices = devices_for(flags.suggest, chosen.mesh, flags)
        plan = make_plan(dataclasses.replace(flags, search=False), chosen, model, devices)
        learning = (Change("lora.rank", config.lora.rank),) if adapters else ()
        changes = (*learning, *_changed(config, found.changes))
        best = Offer(config.model, adapters, changes, plan)
        if best.fits:
            break
        share *= min(found.bytes / plan.largest, 0.98)
    return best


def _changed(config: Config, changes: Changes) -> Changes:
    """Those that are not so anyway."""
    return tuple(
        change
        for change in changes
        if change.name == "mesh" or operator.attrgetter(change.name)(config) != change.value
    )


def offers(flags: PlanFlags, config: Config) -> Iterator[Offer]:
    """Each model and way, the smallest model first.

    Args:
      config: what is trained; the model `ANY_MODEL` stands for all known ones.

    Raises:
      UserError: unknown devices, or no such model.
    """
    chips_of(flags)  # before anything is said
    ranks = [config.lora.rank] if config.lora.rank else [0, RANK]
    for name in known() if config.model == ANY_MODEL else [config.model]:
        model = model_shape(name)
        for rank in ranks:
            way = f"adapters of rank {rank}" if rank else "all weights"
            say(f"{name}, {way}:")
            changes = (Change("model", name), Change("lora.rank", rank))
            yield offer(flags, apply(config, changes), model)


def known() -> list[str]:
    """A name for each shape that is known without a network."""
    return list({shape: name for name, shape in KNOWN.items() if "Instruct" in name}.values())


def as_text(found: list[Offer], flags: PlanFlags) -> str:
    """For reading: a table, the settings of each row, and what they cost."""
    rows, settings, prices = [], [], {}
    for one in found:
        way = "adapters" if one.adapters else "all weights"
        if one.plan is None or not one.fits:
            rows.append([one.model, way, "no", "", "", ""])
            continue
        plan, expected = one.plan, usual(one.plan, flags)
        rows.append(
            [
                *(one.model, way, "compiled" if plan.devices.compiled else "estimated"),
                f"{tables.gib(plan.largest)} of {tables.gib(plan.devices.chip.memory)}",
                tables.duration(expected.step),
                f"{expected.generated_per_second:,.0f}",
            ]
        )
        settings += [f"{one.model}, {way}:", "", f"    {one.flags}", ""]
        prices |= {c.name: COSTLY[c.name] for c in one.changes if c.name in COSTLY}
    header = ["model", "what learns", "fits", "GiB per chip", "step", "tokens/s"]
    lines = [tables.table(header, rows), "", *settings]
    return "\n".join([*lines, *(f"- {name}: {price}" for name, price in prices.items())])


def as_json(found: list[Offer], flags: PlanFlags) -> dict[str, Any]:
    """For programs; bytes are those of one chip."""

    def row(one: Offer) -> dict[str, Any]:
        told = {"model": one.model, "adapters": one.adapters, "fits": one.fits, "flags": one.flags}
        if one.plan is None:
            return told
        expected = usual(one.plan, flags)
        return told | {
            "estimated": not one.plan.devices.compiled,
            "mesh": one.plan.devices.name,
            "hbm_bytes": one.plan.largest,
            "hbm_capacity_bytes": int(one.plan.devices.chip.memory),
            "step_seconds_estimate": expected.step,
            "generated_tokens_per_second": expected.generated_per_second,
        }

    return {"topology": flags.suggest, "offers": [row(one) for one in found]}
