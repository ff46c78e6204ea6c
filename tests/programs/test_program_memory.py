"""What lies on a device beside the programs, from shapes alone."""

import dataclasses
import gc
import sys

import jax
import plans
import pytest
from helpers import TINY, a_policy, on_mesh, tiny_params

from alphamed_jax.compiled.topology import Chip
from alphamed_jax.config import LossConfig
from alphamed_jax.data.draws import Draws
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.model.network import count_parameters
from alphamed_jax.planning.devices import Devices
from alphamed_jax.planning.step import planned_step
from alphamed_jax.programs import PROGRAMS
from alphamed_jax.programs.abstract import device_bytes
from alphamed_jax.programs.record import (
    checkpoint_parts,
    given_parts,
    memory_parts,
    parts,
    resident_bytes,
)
from alphamed_jax.rl import buckets
from alphamed_jax.rl import slots as scheduling
from alphamed_jax.rl.step import grpo_step
from alphamed_jax.rl.update import init_state


def with_kl():
    return dataclasses.replace(plans.config(), loss=LossConfig(kl_coef=0.1))


def test_the_state_is_read_from_its_arrays():
    step = plans.step()
    held, optimizer = device_bytes(step.state.params), device_bytes(step.optimizer)
    # Split over all eight devices, but for norms and what the axes do not divide.
    assert count_parameters(TINY) * 4 / 8 <= held < 1.1 * count_parameters(TINY) * 4 / 8
    assert 2 * held < optimizer < 2.01 * held  # two moments, and counters
    assert device_bytes(step.layers) + device_bytes(step.ends) == held
    assert checkpoint_parts(step)["copy"] == held + optimizer


def test_caches_are_those_of_a_data_shard_and_split_over_heads():
    step = plans.step()
    place = 2 * 2 * 2 * 8 * 2  # keys and values, layers, 4 heads over 2 devices, width, bfloat16
    caches = parts(step.decode_state)["caches"]
    assert caches == 8 * 512 * place  # 8 x 4 responses over 4 data shards
    former = plans.named("grow_cache").arguments(step).arguments
    assert parts(*former)["caches"] == caches / 2
    assert parts(step.prompt_caches)["caches"] == pytest.approx(2 * 64 * place, abs=16)


def test_with_slots_there_are_copies_of_the_prompts_caches_and_fewer_own_ones():
    whole, few = plans.step(), plans.step(plans.config(slots=8))
    assert parts(few.decode_state)["caches"] == parts(whole.decode_state)["caches"] / 4
    assert device_bytes(whole.slot_prompts) == 0
    assert device_bytes(few.slot_prompts) == device_bytes(few.prompt_caches) > 0
    # Decoding reads the copies, and the prompts' own wait beside it for the next slots.
    decode = plans.named("decode")
    beside = parts(*decode.resident(few))["caches"], parts(*decode.resident(whole))["caches"]
    assert beside == (device_bytes(few.prompt_caches), 0)


def test_a_reference_policy_stays_through_all_programs():
    plain, more = plans.step(), plans.step(with_kl())
    reference = device_bytes(more.reference)
    assert reference > 0
    for program in PROGRAMS:
        grown = resident_bytes(program, more) - resident_bytes(program, plain)
        if program.name == "score":
            # Scoring has the reference among its arguments, and the policy beside them.
            assert grown == device_bytes(more.state.params)
            assert given_parts(program, more)["weights"] == reference
        else:
            assert grown == reference, program.name
    saved = checkpoint_parts(more)["weights"] - checkpoint_parts(plain)["weights"]
    assert saved == reference


def test_weights_for_decoding_stay_while_responses_are_read_and_several_rounds_keep_theirs():
    once, often = (plans.step(plans.config(max_rounds=rounds)) for rounds in (1, 2))
    reward = plans.named("reward")
    for step in (once, often):
        assert memory_parts(reward, step)["decode_weights"] == device_bytes(once.decode_weights)
    for name in ("prefill", "decode", "reward"):
        program = plans.named(name)
        kept = resident_bytes(program, often) - resident_bytes(program, once)
        assert kept == device_bytes(once.trajectories), name


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_is_made_of_kinds_that_are_shown(program):
    step = plans.step(dataclasses.replace(plans.config(slots=8), loss=LossConfig(kl_coef=0.1)))
    given = program.arguments(step)
    arrays = [x for x in given.arguments if not isinstance(x, (type(TINY), tuple)) or x]
    total = sum(memory_parts(program, step).values())
    assert total == sum(given_parts(program, step).values()) + resident_bytes(program, step)
    assert arrays
    if program.name in ("decode", "refill"):
        state = step.decode_weights, step.decode_state
        assert memory_parts(program, step)["decode_weights"] == device_bytes(state[0])
        assert memory_parts(program, step)["caches"] >= parts(*state)["caches"]


def test_arguments_are_those_that_the_programs_take():
    step = plans.step()
    given = given_parts(plans.named("decode"), step)
    state = (step.decode_weights, step.prompt_caches, step.decode_state)
    small = sum(given.values()) - device_bytes(state)
    assert 0 < small < 100  # stop ids, the key, when to pause


QUESTION = Question("q", "Which?", ("one", "two"), "B", "made_up")
ANY_CHIP = Chip(1e12, 2**34, 1e12, 1e11)
LAID_OUT = {"prompts": 4, "group_size": 8, "max_new_tokens": 64}


@pytest.mark.slow
@pytest.mark.parametrize("slots", [None, 16], ids=["all_at_once", "refilled"])
def test_no_more_lies_on_the_device_than_the_records_say(monkeypatch, slots):
    # Given a step whose caches grow twice and whose slots are given up, on one device,
    monkeypatch.setattr(buckets, "FIRST_CAPACITY", 16)
    monkeypatch.setattr(scheduling, "FEWEST_SLOTS", 1)
    config = plans.config("1x1", slots=slots, update={"mini_batches": 2}, **LAID_OUT)
    policy = a_policy(config, stop_ids=tuple(range(0, 320, 20)), width=16)
    planned = planned_step(config, TINY, Devices("here", policy.mesh, ANY_CHIP, "cpu"), 16)
    params = on_mesh(tiny_params(), "1x1")
    state = init_state(policy.objective(config), params)
    questions = [Prompt(QUESTION, [5, 6, i]) for i in range(8)]
    gc.collect()
    others = sum(x.nbytes for x in jax.live_arrays()) - device_bytes(planned.state)
    found = {}

    def watched(program):
        def run(*given, **options):
            lying = sum(x.nbytes for x in jax.live_arrays()) - others
            found[program.name] = max(found.get(program.name, 0), lying)
            return program.function(*given, **options)

        return run

    for program in PROGRAMS:
        for module in [m for n, m in sys.modules.items() if n.startswith("alphamed_jax.rl")]:
            for space in (module, *(x for x in vars(module).values() if isinstance(x, type))):
                if vars(space).get(program.function_name) is program.function:
                    monkeypatch.setattr(space, program.function_name, watched(program))
    # when it runs,
    with jax.set_mesh(policy.mesh):
        grpo_step(policy, config, state, None, Draws(questions, config.seed), 0)
    # then every program was looked at, and nothing was there that its record leaves out.
    assert set(found) == {program.name for program in PROGRAMS if program.used(planned)}
    for program in PROGRAMS:
        if program.used(planned):
            told = sum(memory_parts(program, planned).values())
            assert found[program.name] <= told, program.name
            # Where slots are refilled all get as large as planned: the records say little more.
            assert slots is None or told < 1.2 * found[program.name], program.name
