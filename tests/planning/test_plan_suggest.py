"""Looking for settings that fit, with a compiler that is a formula."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.compiled.topology import Chip
from alphamed_jax.config import Config
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.step import planned_step
from alphamed_jax.planning.suggest import (
    PRICES,
    Change,
    apply,
    bases,
    changed,
    decoding_ladder,
    search,
    update_ladder,
)
from alphamed_jax.programs import PROGRAMS, planned_programs

MIB = 2**20
CHIP = Chip(1e12, 100 * MIB, 1e12, 1e12)


def make_step(config: Config):
    devices = devices_for(plans.GPU, config.mesh, PlanFlags())
    return planned_step(config, TINY, devices, 64)


def used(config: Config):
    return [program.name for program in planned_programs(make_step(config))]


class Compiler:
    """Peaks in MiB by formula, and which programs were compiled."""

    def __init__(self, **peaks):
        self.peaks, self.compiled = peaks, []

    def __call__(self, program, step):
        self.compiled.append(program.name)
        peak = self.peaks.get(program.name, lambda step: 1)(step)
        return plans.cost(peak=int(peak * MIB))


def searched(config, compiler, most=8):
    step = make_step(config)
    costs = {program: compiler(program, step) for program in planned_programs(step)}
    compiler.compiled = []
    return search(config, make_step, costs, compiler, CHIP, most)


def test_an_update_that_does_not_fit_gets_smaller_micro_batches_and_nothing_else_is_compiled():
    compiler = Compiler(update=lambda step: 10 + 5 * step.shape.micro_batch)
    found = searched(plans.config(update={"micro_batch": 32}), compiler)
    assert found is not None
    assert (found.flags, found.fits) == ("--update.micro-batch 16", True)
    assert set(compiler.compiled) == {"update"}
    assert found.compiles == len(compiler.compiled)
    assert found.phases["update"].total == pytest.approx(90 * MIB, rel=1e-3)


def test_steps_that_cannot_be_enough_are_not_compiled():
    compiler = Compiler(update=lambda step: 10 + 20 * step.shape.micro_batch)
    found = searched(plans.config(update={"micro_batch": 32}), compiler)
    assert found is not None
    assert found.flags == "--update.micro-batch 4"
    assert compiler.compiled == ["update"]  # not 16 and 8, of 330 and 170 MiB


def test_decoding_that_does_not_fit_gets_fewer_slots_and_their_programs_are_verified():
    compiler = Compiler(decode=lambda step: 4 * step.slots)
    found = searched(plans.config(), compiler)
    assert found is not None
    assert (found.flags, found.fits) == ("--rollout.slots 16", True)
    assert set(compiler.compiled) == {"refill", "insert_prompts", "decode", "grow_cache"}
    assert set(found.phases) == {*used(plans.config(slots=16)), "checkpoint"}


def test_both_at_once_are_mended_together():
    compiler = Compiler(
        update=lambda step: 5 * step.shape.micro_batch, decode=lambda step: 4 * step.slots
    )
    found = searched(plans.config(update={"micro_batch": 32}), compiler)
    assert found is not None
    assert found.flags == "--rollout.slots 16 --update.micro-batch 16"
    assert found.fits


@pytest.mark.slow
def test_a_phase_without_a_setting_of_its_own_needs_another_mesh_of_which_all_is_compiled():
    compiler = Compiler(prefill=lambda step: 400 / step.mesh.shape["tensor"])
    found = searched(plans.config("8x1"), compiler)
    assert found is not None
    assert not found.fits  # one step wider is not enough
    assert found.flags == "--mesh 4x2"
    assert compiler.compiled == ["prefill"]  # the others need not be looked at
    compiler = Compiler(prefill=lambda step: 150 / step.mesh.shape["tensor"])
    found = searched(plans.config("8x1"), compiler)
    assert found is not None
    assert (found.flags, found.fits) == ("--mesh 4x2", True)
    assert set(compiler.compiled) == set(used(plans.config()))


def test_no_more_is_compiled_than_allowed_and_the_closest_is_kept():
    compiler = Compiler(update=lambda step: 200 + 0.1 * step.shape.micro_batch)
    found = searched(plans.config(update={"micro_batch": 32}), compiler, most=1)
    assert found is not None
    assert not found.fits
    assert len(compiler.compiled) == found.compiles == 1
    assert found.worst < 204 * MIB


def test_ladders_go_down_to_a_sequence_for_each_data_row():
    rungs = update_ladder(plans.config(update={"micro_batch": 24, "remat": "none"}), shards=4)
    remat = Change("update.remat", "layer")
    sizes = [12, 4]
    assert rungs[0] == (remat,)
    assert rungs[1:3] == [(remat, Change("update.micro_batch", size)) for size in sizes]
    assert rungs[3] == (*rungs[2], Change("update.logits_chunk", 512))
    slots = [rung[0].value for rung in decoding_ladder(plans.step())]
    assert slots == [16, 8, 4]  # of 32 responses on four data shards


def test_what_alters_learning_comes_after_what_does_not_and_a_mesh_comes_last():
    found = bases(plans.config(), plans.step(), {plans.named("decode")})
    assert found[0] == ()
    assert found[1:-1] == [(Change("rollout.weights", "sharded"),)]
    assert found[-1] == (Change("mesh", "2x4"),)
    # A state that does not fit is split over all devices already.
    assert bases(plans.config(), plans.step(), ()) == [()]


def test_settings_that_exist_are_applied_where_they_belong():
    changed = apply(plans.config(), (Change("update.micro_batch", 4), Change("mesh", "2x4")))
    assert (changed.update.micro_batch, changed.mesh) == (4, "2x4")
    assert dataclasses.replace(changed, mesh="4x2", update=plans.config().update) == plans.config()
    assert apply(changed, (Change("rollout.slots", 8),)).rollout.slots == 8
    with pytest.raises(TypeError):
        apply(changed, (Change("rollout.slotz", 8),))


def test_every_change_says_what_it_costs():
    config = plans.config(update={"micro_batch": 32, "remat": "none"})
    own = plans.config(update={"mesh": "2x4"})
    ladders = (
        *bases(config, plans.step(config), PROGRAMS),
        *bases(own, plans.step(own), [plans.named("update")]),
        *decoding_ladder(plans.step(config)),
        *update_ladder(config, shards=4),
    )
    assert {change.name for changes in ladders for change in changes} == PRICES.keys()


def test_a_setting_changes_the_programs_whose_arguments_it_changes():
    def moved(**changes):
        before, after = plans.step(), plans.step(plans.config(**changes))
        return {program.name for program in changed(PROGRAMS, before, after) if program.planned}

    assert moved() == set()
    assert moved(slots=8) == {"refill", "insert_prompts", "decode", "grow_cache"}
    assert moved(weights="sharded") == {
        "layer_decode_weights",
        "head_decode_weights",
        "refill",
        "decode",
    }
    assert moved(update={"micro_batch": 8}) == {"update"}
    assert moved(update={"epochs": 2}) >= {"update", "score"}
    everything = set(used(plans.config()))
    assert moved(mesh="2x4") == everything
