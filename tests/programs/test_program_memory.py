"""What lies on a device beside the programs, from shapes alone."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.config import LossConfig
from alphamed_jax.model.network import count_parameters
from alphamed_jax.programs import PROGRAMS, named
from alphamed_jax.programs.abstract import device_bytes
from alphamed_jax.programs.record import (
    checkpoint_parts,
    given_parts,
    memory_parts,
    parts,
    resident_bytes,
)


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
    former = named("grow_cache").arguments(step).arguments
    assert parts(*former)["caches"] == caches / 2
    assert parts(step.prompt_caches)["caches"] == pytest.approx(2 * 64 * place, abs=16)


def test_with_slots_there_are_copies_of_the_prompts_caches_and_fewer_own_ones():
    whole, few = plans.step(), plans.step(plans.config(slots=8))
    assert parts(few.decode_state)["caches"] == parts(whole.decode_state)["caches"] / 4
    assert device_bytes(whole.slot_prompts) == 0
    assert device_bytes(few.slot_prompts) == device_bytes(few.prompt_caches) > 0
    # Decoding reads the copies, and the prompts' own wait beside it for the next slots.
    decode = named("decode")
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


def test_several_rounds_keep_the_weights_for_decoding():
    once, often = (plans.step(plans.config(max_rounds=rounds)) for rounds in (1, 2))
    reward = named("reward")
    kept = resident_bytes(reward, often) - resident_bytes(reward, once)
    assert kept == device_bytes(once.decode_weights)


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
    given = given_parts(named("decode"), step)
    state = (step.decode_weights, step.prompt_caches, step.decode_state)
    small = sum(given.values()) - device_bytes(state)
    assert 0 < small < 100  # stop ids, the key, when to pause
