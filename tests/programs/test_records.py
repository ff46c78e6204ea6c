"""A program is described once: the plan, the compiler and the tests read its record."""

import importlib
import json
import pkgutil

import jax
import jax.numpy as jnp
import plans
import pytest
from helpers import TINY, needs_libtpu

from alphamed_jax import rl
from alphamed_jax.compiled.work import Work
from alphamed_jax.planning import result
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.programs import PROGRAMS
from alphamed_jax.programs.compile_only import compile_only
from alphamed_jax.programs.planned import StepShape
from alphamed_jax.programs.record import Estimate, Program, Variety, call
from alphamed_jax.rl.resharding import Reshard

MIB = 2**20


@jax.jit
def judge_lengths(tokens, weights):
    return jnp.einsum("bt,bd->td", tokens.astype(weights.dtype), weights).sum(), tokens + 1


def made_up(step):
    wide = step.array((step.responses, 1024), jnp.float32, "batch")
    return call(step.trajectories.tokens, wide)


MADE_UP = Program(
    name="made_up",
    stage="reward",
    function=judge_lengths,
    arguments=made_up,
    resident=lambda step: (step.state, step.decode_weights),
    used=lambda step: step.shape.group > 2,
    repeats=lambda step, course: 3,
    unit="a try",
    estimate=lambda step: Estimate(Work(flops=989e12), temporaries=5 * MIB),
    bars=lambda step, report: {"made_up_flops": {"measured": report.work.flops, "kept": True}},
    versions=lambda step, variety: 2 * variety.batches,
)
ALL = (*PROGRAMS, MADE_UP)


def planned(**settings):
    flags = PlanFlags(topology=plans.GPU, response_lengths=(256,), prompt_tokens=64)
    devices = devices_for(plans.GPU, "4x2", flags)
    return result.make_plan(flags, plans.config(**settings), TINY, devices, programs=ALL)


def test_a_made_up_program_stands_in_the_plan_with_its_memory_work_and_time():
    plan = planned()
    rows = [line for line in result.as_text(plan).splitlines() if line.startswith("| made_up")]
    memory, work = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)
    # Its memory: what it is given, what lies beside it, what it makes,
    told = plan.phases["made_up"]
    given = 8 * 1024 * 4 + 8 * 512 * 4  # 32 responses over four data shards
    assert told.parts["batch"] == given
    assert told.parts["decode_weights"] > 0
    assert told.temporaries == 5 * MIB
    assert told.total == 5 * MIB + sum(told.parts.values())
    assert (memory[0], memory[-1]) == ("made_up", "yes")
    # its work, a second on this card,
    assert work[0] == "made_up, a try *"
    assert (work[1], work[-2], work[-1]) == ("989 T", "1 s", "products")
    # and its time in the step, three times over.
    (expected,) = plan.expected
    assert expected.phases["made_up"].serial == pytest.approx(3)
    assert expected.stages["reward"] == pytest.approx(3, rel=1e-3)
    found = json.loads(json.dumps(result.as_json(plan)))["phases"]["made_up"]
    assert found["seconds_in_step"] == pytest.approx(3)
    # A step that does not run it does not plan it.
    assert "made_up" not in planned(group_size=2).phases


def test_what_it_needs_is_weighed_when_settings_are_sought():
    big = Program(
        name="big",
        stage="update",
        function=judge_lengths,
        arguments=lambda step: call(step.batch.tokens, step.batch.tokens),
        estimate=lambda step: Estimate(temporaries=3 * step.shape.micro_batch * MIB),
    )
    flags = PlanFlags(topology=plans.GPU, hbm_gb=60 / 1024, prompt_tokens=64)
    devices = devices_for(plans.GPU, "4x2", flags)
    config = plans.config(update={"micro_batch": 32})
    plan = result.make_plan(flags, config, TINY, devices, programs=(*PROGRAMS, big))
    assert not plan.phases["big"].fits
    assert plan.suggestion is not None
    assert plan.suggestion.fits
    assert plan.suggestion.flags == "--update.micro-batch 16"


def test_it_is_among_what_compile_counts_are_held_against():
    step = plans.step()
    bounds = {p.function_name: p.most_versions(step, Variety(batches=4)) for p in ALL}
    assert bounds["judge_lengths"] == 8
    assert bounds["update"] == 4
    assert bounds["score"] == 0  # no step of this configuration runs it


def test_names_are_told_apart():
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS)
    assert len({program.function_name for program in PROGRAMS}) == len(PROGRAMS)
    assert {program.stage for program in PROGRAMS} == {"rollout", "reward", "update"}


@needs_libtpu
def test_it_is_compiled_with_the_others_and_stands_in_the_report():
    shape = StepShape(prompts=8, group=4, prompt_width=64, response=64, micro_batch=8)
    found = compile_only("v5e:2x4", "4x2", TINY, shape, programs=(MADE_UP,))
    assert found["phases"]["made_up"]["flops"] > 0
    assert found["phases"]["made_up"]["collectives"]["all-reduce"]
    assert found["memory"]["made_up"] > found["phases"]["made_up"]["peak"]
    assert found["bars"]["made_up_flops"]["kept"]
    assert found["fits"]


NO_RECORD = {
    "active": "a few numbers per slot",
    "group_advantages": "a few numbers per response",
    "merge_prefilled": "only a stream's, outside of a training step",
    "take_responses": "only a stream's, outside of a training step",
    "extract": "for users; a step runs `extract_or_reason`",
    "pick_rows": "tokens and log-probabilities of a few rounds",
    "_finished_lengths": "a number per response; only with reward.skip_truncated",
}
"""Jitted functions of a step that the plan leaves out, and why."""


def test_each_jitted_function_of_a_step_has_a_record_or_a_reason():
    jitted = type(jax.jit(lambda: 0))
    found = set()
    for module in pkgutil.iter_modules(rl.__path__, "alphamed_jax.rl."):
        loaded = importlib.import_module(module.name)
        members = [value for value in vars(loaded).values() if isinstance(value, type)]
        spaces = [vars(loaded), *map(vars, members)]
        found |= {
            value
            for space in spaces
            for value in space.values()
            if isinstance(value, jitted | Reshard)
            and value.__module__.startswith("alphamed_jax.rl")
        }
    recorded = {program.function for program in PROGRAMS}
    assert recorded <= found
    assert {function.__name__ for function in found - recorded} == set(NO_RECORD)
