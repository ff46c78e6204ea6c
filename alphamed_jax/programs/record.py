"""What is said of a jitted program once, for the plan, the compiler, the benchmark and the tests.

A `Program` names its function and its abstract arguments; everything that can be read from these
is read from them: memory by kind, whether a setting changes the program, how it is lowered.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from alphamed_jax.compiled.report import ProgramReport
from alphamed_jax.compiled.work import Work
from alphamed_jax.model.mesh import AnyMesh
from alphamed_jax.programs.abstract import device_bytes
from alphamed_jax.programs.planned import Copy, PlannedStep
from alphamed_jax.rl.decode import DecodeState
from alphamed_jax.rl.decode_weights import DecodeWeights
from alphamed_jax.rl.language_model import Caches
from alphamed_jax.rl.prompt_cache import PromptCache
from alphamed_jax.rl.update import TrainState

KINDS: tuple[str, ...] = ("weights", "optimizer", "decode_weights", "caches", "batch", "copy")
"""What memory is told apart by: the columns of a plan."""


class Call(NamedTuple):
    """Arguments of a jitted function: abstract arrays, and static ones as they are."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]


def call(*arguments: Any, **options: Any) -> Call:
    """As the function is called."""
    return Call(arguments, options)


class Estimate(NamedTuple):
    """What a program costs on one device, in closed form."""

    base: Work = Work()
    """Outside of open loops."""
    per_iteration: Work = Work()
    """One iteration of an open loop: a decode step, a micro-batch."""
    temporaries: int = 0
    """Bytes that it makes, its results included."""


class Course(NamedTuple):
    """How a step with responses of given lengths goes."""

    longest: int
    decode_steps: int
    refills: int
    micro_batches: float
    """Of one update, as many as the compiled ones that have so many tokens."""


class Iterations(NamedTuple):
    """Iterations of an open loop that cost the same."""

    count: float
    saved_traffic: float = 0
    """Bytes of memory that each moves less than the compiled one, which is the largest."""


class Variety(NamedTuple):
    """How many shapes there are in a run, of what programs are compiled anew for."""

    slots: int = 1
    """Numbers of slots that a rollout decodes with, one after another."""
    capacities: int = 1
    """Lengths of caches."""
    batches: int = 1
    """Shapes of batches."""


Bar = dict[str, Any]
"""What was measured, the most that it may be (`bar`), and whether it is (`kept`)."""


def ratio_bar(measured: float | int, needed: float | int, most: float | int) -> Bar:
    """A ratio to what is needed, which may not be above `most`."""
    ratio = measured / needed
    return {
        "measured": measured,
        "floor": needed,
        "ratio": round(ratio, 3),
        "bar": most,
        "kept": ratio <= most,
    }


@dataclass(frozen=True, eq=False)
class Program:
    """One jitted program of a training step. A new program is one of these in `PROGRAMS`."""

    name: str
    stage: str
    """rollout, reward or update: the part of a step whose time it belongs to."""
    function: Any
    """The jitted function that training calls."""
    arguments: Callable[[PlannedStep], Call]
    """With what, in a step of these sizes."""
    resident: Callable[[PlannedStep], tuple[Any, ...]] = lambda step: (step.state, step.reference)
    """Arrays that lie on the devices meanwhile and are none of its arguments."""
    used: Callable[[PlannedStep], bool] = lambda step: True
    """Whether such a step runs it."""
    repeats: Callable[[PlannedStep, Course], float] = lambda step, course: 1
    """How often a step runs it."""
    unit: str = ""
    """What an iteration of its open loop is, as "a step"; or what is repeated, as "a layer"."""
    iterations: Callable[[PlannedStep, Course], list[Iterations]] = lambda step, course: [
        Iterations(course.micro_batches)
    ]
    """Iterations of its open loop in each run; without such a loop they cost nothing."""
    estimate: Callable[[PlannedStep], Estimate] = lambda step: Estimate()
    """What it costs where there is no compiler for the devices; the default is next to nothing."""
    bars: Callable[[PlannedStep, ProgramReport], dict[str, Bar]] | None = None
    """What is demanded of it as compiled; None: nothing."""
    versions: Callable[[PlannedStep, Variety], int] | None = None
    """How often a run compiles it at most; None: once where it is used."""
    planned: bool = True
    """Whether a plan shows it; if not, it takes neither time nor memory worth planning."""

    @property
    def function_name(self) -> str:
        """As the compiler's events and traces call it."""
        return self.function.__name__

    def mesh(self, step: PlannedStep) -> AnyMesh:
        """The mesh that it runs on: of the update, or of all else."""
        return step.update_mesh if self.stage == "update" else step.mesh

    def lower(self, step: PlannedStep) -> jax.stages.Lowered:
        """Lower it for the devices of its mesh."""
        mesh = self.mesh(step)
        assert isinstance(mesh, Mesh), "programs are compiled for devices"
        # Made outside of the mesh's context, in which optax would place a counter on its devices.
        given = self.arguments(step)
        with jax.set_mesh(mesh):
            return self.function.lower(*given.arguments, **given.options)

    def same(self, step: PlannedStep, other: PlannedStep) -> bool:
        """Whether two steps run the same program: it follows from its arguments."""
        return self.arguments(step) == self.arguments(other)

    def most_versions(self, step: PlannedStep, variety: Variety) -> int:
        """How often a run compiles it at most."""
        return self.versions(step, variety) if self.versions else int(self.used(step))


def parts(*trees: Any) -> dict[str, int]:
    """Bytes on one device of each of `KINDS`."""
    found: dict[str, int] = dict.fromkeys(KINDS, 0)

    def add(kind: str, tree: Any) -> None:
        arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.ShapeDtypeStruct)]
        found[kind] += device_bytes(arrays)

    for tree in trees:
        match tree:
            case TrainState():
                add("weights", tree.params)
                add("optimizer", tree._replace(params={}))
            case DecodeState():
                add("caches", tree.caches)
                add("batch", tree._replace(caches=Caches((), ())))
            case DecodeWeights():
                add("decode_weights", tree)
            case PromptCache():
                add("caches", tree)
            case Copy():
                add("copy", tree)
            case dict():  # weights, by their names
                add("weights", tree)
            case _:
                add("batch", tree)
    return found


def given_parts(program: Program, step: PlannedStep) -> dict[str, int]:
    """Bytes of a program's arguments by kind."""
    given = program.arguments(step)
    return parts(*given.arguments, *given.options.values())


def resident_bytes(program: Program, step: PlannedStep) -> int:
    """Bytes on a device during a program that are not among its arguments."""
    return sum(parts(*program.resident(step)).values())


@functools.lru_cache(maxsize=256)
def memory_parts(program: Program, step: PlannedStep) -> Mapping[str, int]:
    """Bytes of each kind during a program, before anything that it makes itself."""
    given, beside = given_parts(program, step), parts(*program.resident(step))
    return MappingProxyType({kind: given[kind] + beside[kind] for kind in KINDS})


def total_bytes(program: Program, step: PlannedStep, peak: int) -> int:
    """Bytes on a device during a program that by itself uses `peak`, its arguments included.

    A compiler does not count arguments that a program has no use for; they lie there still.
    """
    known = sum(memory_parts(program, step).values())
    return max(peak + resident_bytes(program, step), known)


def checkpoint_parts(step: PlannedStep) -> dict[str, int]:
    """The same at the border of steps, where a checkpoint is written from a copy of what learns."""
    return parts(step.state, step.reference, Copy(step.learned))
