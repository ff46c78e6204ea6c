"""Looking for settings that fit, with a compiler that is a formula."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.compiled.arguments import slots_of
from alphamed_jax.compiled.topology import Chip
from alphamed_jax.config import Config
from alphamed_jax.planning.case import case_for, phases_of
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.suggest import (
    PRICES,
    PROGRAMS,
    Change,
    apply,
    bases,
    decoding_ladder,
    learning_ladder,
    search,
)

MIB = 2**20
CHIP = Chip(1e12, 100 * MIB, 1e12, 1e12)
MESH = (1, 4, 2)


def make_case(config: Config):
    devices = devices_for(plans.GPU, config.mesh, PlanFlags())
    return case_for(config, TINY, devices, 64)


class Compiler:
    """Peaks in MiB by formula, and which programs were compiled."""

    def __init__(self, **peaks):
        self.peaks, self.compiled = peaks, []

    def __call__(self, case, name):
        self.compiled.append(name)
        peak = self.peaks.get(name, lambda case: 1)(case)
        return plans.cost(peak=int(peak * MIB))


def searched(config, compiler, most=8):
    case = make_case(config)
    costs = {name: compiler(case, name) for name in phases_of(case)}
    compiler.compiled = []
    return search(config, make_case, costs, compiler, CHIP, most)


def test_an_update_that_does_not_fit_gets_smaller_micro_batches_and_nothing_else_is_compiled():
    compiler = Compiler(update=lambda case: 10 + 5 * case.work.micro_batch)
    found = searched(plans.config(update={"micro_batch": 32}), compiler)
    assert found is not None
    assert (found.flags, found.fits) == ("--update.micro-batch 16", True)
    assert set(compiler.compiled) == {"update"}
    assert found.compiles == len(compiler.compiled)
    assert found.phases["update"].total == pytest.approx(90 * MIB, rel=1e-3)


def test_steps_that_cannot_be_enough_are_not_compiled():
    compiler = Compiler(update=lambda case: 10 + 20 * case.work.micro_batch)
    found = searched(plans.config(update={"micro_batch": 32}), compiler)
    assert found is not None
    assert found.flags == "--update.micro-batch 4"
    assert compiler.compiled == ["update"]  # not 16 and 8, of 330 and 170 MiB


def test_decoding_that_does_not_fit_gets_fewer_slots_and_their_programs_are_verified():
    compiler = Compiler(decode=lambda case: 4 * slots_of(case))
    found = searched(plans.config(), compiler)
    assert found is not None
    assert (found.flags, found.fits) == ("--rollout.slots 16", True)
    assert set(compiler.compiled) == {"refill", "fan_out", "decode", "grow"}
    assert set(found.phases) == {*phases_of(make_case(plans.config(slots=16))), "checkpoint"}


def test_both_at_once_are_mended_together():
    compiler = Compiler(
        update=lambda case: 5 * case.work.micro_batch, decode=lambda case: 4 * slots_of(case)
    )
    found = searched(plans.config(update={"micro_batch": 32}), compiler)
    assert found is not None
    assert found.flags == "--rollout.slots 16 --update.micro-batch 16"
    assert found.fits


def test_a_phase_without_a_setting_of_its_own_needs_another_mesh_of_which_all_is_compiled():
    compiler = Compiler(prefill=lambda case: 400 / case.mesh.shape["tensor"])
    found = searched(plans.config("8x1"), compiler)
    assert found is not None
    assert not found.fits  # one step wider is not enough
    assert found.flags == "--mesh 4x2"
    assert compiler.compiled == ["prefill"]  # the others need not be looked at
    compiler = Compiler(prefill=lambda case: 150 / case.mesh.shape["tensor"])
    found = searched(plans.config("8x1"), compiler)
    assert found is not None
    assert (found.flags, found.fits) == ("--mesh 4x2", True)
    assert set(compiler.compiled) == set(phases_of(make_case(plans.config())))


def test_no_more_is_compiled_than_allowed_and_the_closest_is_kept():
    compiler = Compiler(update=lambda case: 200 + 0.1 * case.work.micro_batch)
    found = searched(plans.config(update={"micro_batch": 32}), compiler, most=1)
    assert found is not None
    assert not found.fits
    assert len(compiler.compiled) == found.compiles == 1
    assert found.worst < 204 * MIB


def test_ladders_go_down_to_a_sequence_for_each_data_row():
    rungs = learning_ladder(plans.config(update={"micro_batch": 24, "remat": "none"}), rows=4)
    remat = Change("update.remat", "layer")
    sizes = [12, 4]
    assert rungs[0] == (remat,)
    assert rungs[1:3] == [(remat, Change("update.micro_batch", size)) for size in sizes]
    assert rungs[3] == (*rungs[2], Change("update.logits_chunk", 512))
    slots = [rung[0].value for rung in decoding_ladder(plans.case())]
    assert slots == [16, 8, 4]  # of 32 responses on four data rows


def test_what_alters_learning_comes_after_what_does_not_and_a_mesh_comes_last():
    found = bases(plans.config(), MESH, ("decode",))
    assert found[0] == ()
    assert found[1:-1] == [(Change("rollout.weights", "sharded"),)]
    assert found[-1] == (Change("mesh", "2x4"),)
    # A state that does not fit is split over all devices already.
    assert bases(plans.config(), MESH, ("checkpoint",))[-1:] != [(Change("mesh", "2x4"),)]


def test_settings_that_exist_are_applied_where_they_belong():
    changed = apply(plans.config(), (Change("update.micro_batch", 4), Change("mesh", "2x4")))
    assert (changed.update.micro_batch, changed.mesh) == (4, "2x4")
    assert dataclasses.replace(changed, mesh="4x2", update=plans.config().update) == plans.config()
    assert apply(changed, (Change("rollout.slots", 8),)).rollout.slots == 8
    with pytest.raises(TypeError):
        apply(changed, (Change("rollout.slotz", 8),))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_change_says_what_it_costs(name):
    assert PRICES[name]
