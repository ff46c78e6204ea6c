"""What lies on a device beside the programs, from shapes alone."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.compiled import arguments, memory
from alphamed_jax.config import LossConfig
from alphamed_jax.model.network import count_parameters


def test_the_state_is_read_from_its_arrays():
    known = memory.sizes(plans.case())
    held = known["weights"]
    # Split over all eight devices, but for norms and what the axes do not divide.
    assert count_parameters(TINY) * 4 / 8 <= held < 1.1 * count_parameters(TINY) * 4 / 8
    assert 2 * held < known["optimizer"] < 2.01 * held  # two moments, and counters
    assert known["layers"] + known["ends"] == held
    assert known["copy"] == held + known["optimizer"]


def test_caches_are_those_of_a_data_row_and_split_over_heads():
    known = memory.sizes(plans.case())
    place = 2 * 2 * 2 * 8 * 2  # keys and values, layers, 4 heads over 2 devices, width, bfloat16
    assert known["caches"] == 8 * 512 * place  # 8 x 4 responses over 4 data rows
    assert known["former_caches"] == known["caches"] / 2
    assert known["prompt_caches"] == pytest.approx(2 * 64 * place, abs=16)


def test_with_slots_there_are_copies_of_the_prompts_caches_and_fewer_own_ones():
    whole, few = memory.sizes(plans.case()), memory.sizes(plans.case(plans.config(slots=8)))
    assert few["caches"] == whole["caches"] / 4
    assert whole["fanned_out"] == whole["waiting_prompts"] == 0
    assert few["fanned_out"] == few["slot_prompts"] == few["waiting_prompts"] > 0


def test_a_reference_policy_stays_through_all_phases():
    with_kl = dataclasses.replace(plans.config(), loss=LossConfig(kl_coef=0.1))
    plain, more = memory.beside(plans.case()), memory.beside(plans.case(with_kl))
    reference = memory.sizes(plans.case(with_kl))["reference"]
    assert reference > 0
    grown = {phase for phase in memory.BESIDE if more[phase] - plain[phase] == reference}
    # Scoring has the reference among its arguments, and the policy beside them.
    assert grown == set(memory.BESIDE) - {"score"}


def test_several_rounds_keep_the_weights_for_decoding():
    case = plans.case()
    once, often = (memory.beside(case, rounds)["reward"] for rounds in (1, 2))
    assert often - once == memory.sizes(case)["decode_weights"]


def test_every_phase_is_made_of_kinds_that_are_shown():
    known = memory.sizes(plans.case(plans.config(slots=8)), rounds=2)
    for phase, there in memory.BESIDE.items():
        total = sum(known[part] for part in (*memory.ARGUMENTS.get(phase, ()), *there))
        assert sum(memory.parts(known, phase).values()) == total, phase


def test_arguments_are_those_that_the_programs_take():
    case = plans.case()
    known = memory.sizes(case)
    taken = sum(known[part] for part in memory.ARGUMENTS["decode"])
    given = memory.device_bytes(
        (
            arguments.decode_weights(case),
            arguments.prompt_caches(case, case.work.prompts),
            arguments.decoding(case),
        )
    )
    assert taken == given
