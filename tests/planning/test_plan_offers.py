"""What a machine can train: settings found by estimates, then planned in full."""

import dataclasses

import plans
import pytest
from helpers import TINY

from alphamed_jax.planning import offers
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.result import make_plan
from alphamed_jax.planning.suggest import Change, apply

MACHINE = "h100:1"
CONFIG = dataclasses.replace(plans.config(), mesh="auto")


def asked(hbm_gb=None):
    return PlanFlags(suggest=MACHINE, hbm_gb=hbm_gb, prompt_tokens=64)


def found(hbm_gb=None):
    return offers.offer(asked(hbm_gb), CONFIG, TINY)


def test_every_way_to_lay_out_the_chips_is_tried():
    assert offers.meshes(8) == ["8x1", "4x2", "2x4", "1x8"]
    assert offers.meshes(1) == ["1x1"]


def test_ladders_go_from_many_at_once_to_few_and_no_shard_is_left_without_work():
    slots = [
        [change.value for change in rung if change.name == "rollout.slots"]
        for rung in next(offers.sampling_rungs(24, 4))
    ]
    assert slots == [[], [12], [4]]  # multiples of the data shards
    batches = [rung[1].value for rung in next(offers.update_rungs(48, 4))]
    assert batches == [32, 16, 8, 4]


@pytest.fixture(scope="module")
def roomy():
    return found()


def test_with_room_for_all_no_setting_is_given_that_costs_something(roomy):
    assert roomy.fits
    assert not {change.name for change in roomy.changes} & {*offers.COSTLY}


def test_the_settings_are_those_of_a_plan_that_fits(roomy):
    config = apply(CONFIG, roomy.changes)
    again = make_plan(
        PlanFlags(topology=MACHINE, prompt_tokens=64),
        config,
        TINY,
        devices_for(MACHINE, config.mesh, PlanFlags()),
    )
    assert (again.fits, again.largest) == (True, roomy.plan.largest)


def test_with_less_room_fewer_are_at_work_at_once_and_with_none_nothing_fits(roomy):
    less = roomy.plan.largest / 2 / 2**30
    tight = found(less)
    assert tight.fits
    assert tight.plan.largest <= 0.98 * less * 2**30
    assert offers.usual(tight.plan, asked()).step >= offers.usual(roomy.plan, asked()).step
    assert tight.changes != roomy.changes
    nothing = found(1e-6)
    assert (nothing.fits, nothing.plan) == (False, None)


def test_moments_are_rounded_only_where_nothing_fits_with_exact_ones(monkeypatch):
    # Float32 moments take no more than all that is there.
    def on_mesh(search):
        exact = search.config.optimizer.moments == "float32"
        return None if exact else offers._Tried((), 1.0, 1)

    monkeypatch.setattr(offers, "_on_mesh", on_mesh)
    best = offers.quickest(CONFIG, TINY, asked())
    assert best is not None
    assert Change("optimizer.moments", "bfloat16") in best.changes


def test_where_the_compiler_needs_more_than_was_estimated_leaner_settings_follow(
    monkeypatch, roomy
):
    tried = []

    def compiled(flags, config, model, devices):
        plan = make_plan(flags, config, model, devices)
        tried.append(plan.largest)
        # Three times what was estimated, of a machine with twice that.
        doubled = {
            name: there._replace(total=3 * there.total, fits=len(tried) > 1)
            for name, there in plan.phases.items()
        }
        return plan._replace(phases=doubled)

    monkeypatch.setattr(offers, "make_plan", compiled)
    one = found(2 * roomy.plan.largest / 2**30)
    assert one.fits
    assert len(tried) == 2
    assert tried[1] < tried[0]


def test_adapters_are_offered_beside_all_weights_and_alone_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(offers, "offer", lambda flags, config, model: config.lora.rank)
    named = dataclasses.replace(CONFIG, model="meta-llama/Llama-3.2-1B")
    assert list(offers.offers(asked(), named)) == [0, offers.RANK]
    adapters = dataclasses.replace(named, lora=dataclasses.replace(named.lora, rank=4))
    assert list(offers.offers(asked(), adapters)) == [4]


def test_each_known_shape_is_asked_about_once():
    shapes = [offers.KNOWN[name] for name in offers.known()]
    assert len(shapes) == len(set(shapes)) == len(set(offers.KNOWN.values()))


@pytest.mark.parametrize(
    ("times", "found"), [([3, 2, 4, 1], 2), ([None, None, 5, 6], 5), ([None, None], None)]
)
def test_of_a_ladder_that_is_taken_after_which_times_get_longer(monkeypatch, times, found):
    def tried(self, rung, stages):
        (change,) = rung
        return change.value and offers._Tried(rung, change.value, 1)

    monkeypatch.setattr(offers._Search, "tried", tried)
    search = offers._Search(CONFIG, TINY, asked(), 1.0)
    best = search.quickest([[(Change("rollout.slots", time),) for time in times]], ("rollout",))
    assert (best and best.seconds) == found
