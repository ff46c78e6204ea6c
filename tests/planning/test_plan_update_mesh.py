"""The plan of a step whose update has a mesh of its own."""

import dataclasses
import re

import plans
import pytest
from helpers import TINY, needs_libtpu

from alphamed_jax.compiled.collectives import collective_bytes
from alphamed_jax.errors import UserError
from alphamed_jax.model.mesh import data_shards
from alphamed_jax.planning import result, scaling
from alphamed_jax.planning.cost import estimated_cost
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.step import planned_step
from alphamed_jax.planning.suggest import bases
from alphamed_jax.programs.abstract import device_bytes
from alphamed_jax.programs.record import Variety, resident_bytes
from alphamed_jax.programs.update import UPDATE


def own(mesh="2x4", **update):
    return plans.config(mesh="4x2", update={"mesh": mesh} | update)


def test_what_learns_lies_on_the_mesh_of_the_update_and_samples_on_the_other():
    step = plans.step(own())
    for name, mesh in (("state", "2x4"), ("batch", "2x4"), ("decode_weights", "4x2")):
        for leaf in plans.leaves(getattr(step, name)):
            assert plans.mesh_name(leaf) == mesh, name
    there = plans.step(plans.config(mesh="2x4")).full_plan
    assert step.full_plan.prompts.shape == there.prompts.shape
    assert data_shards(step.update_mesh) == 2
    plain = plans.step(plans.config(mesh="4x2")).decode_weights
    assert step.decode_weights.weights["layers"][0]["q"] == plain.weights["layers"][0]["q"]


def test_the_update_costs_what_it_costs_on_that_mesh_and_the_rollout_what_on_the_other():
    step, one, other = (
        plans.step(config) for config in (own(), plans.config(mesh="4x2"), plans.config(mesh="2x4"))
    )
    assert estimated_cost(UPDATE, step) == estimated_cost(UPDATE, other)
    assert estimated_cost(UPDATE, step) != estimated_cost(UPDATE, one)
    decode = plans.named("decode")
    same = (estimated_cost(decode, of).per_iteration for of in (step, one))
    assert len({*same}) == 1
    # Beside decoding lies the copy that its weights were made of.
    copy = device_bytes(step.params_copy)
    assert copy == pytest.approx(device_bytes(step.state.params) / 2, rel=0.1)
    assert resident_bytes(decode, step) - resident_bytes(decode, one) == pytest.approx(
        copy, abs=device_bytes(one.state) * 0.02
    )


def test_resharding_is_a_program_of_a_step_with_two_meshes_alone():
    reshard = plans.named("reshard")
    assert reshard.used(plans.step(own()))
    assert reshard.most_versions(plans.step(own()), Variety()) == 2
    for config in (plans.config(mesh="4x2"), own(mesh="4x2"), own(mesh=None)):
        assert not reshard.used(plans.step(config))
        assert plans.step(config).params_copy == {}
        assert reshard.most_versions(plans.step(config), Variety()) == 0


def test_the_plan_says_which_meshes_and_what_travels():
    flags = PlanFlags(topology=plans.GPU, response_lengths=(256,), prompt_tokens=64)
    devices = devices_for(plans.GPU, "4x2", flags)
    plan = result.make_plan(flags, own(), TINY, devices)
    text = result.as_text(plan)
    assert "mesh 4x2, update 2x4 (fsdp x tensor)" in text
    assert re.search(r"\nupdate.mesh 2x4: a copy of the weights is sent .* GiB per chip", text)
    found = result.as_json(plan)
    assert (found["mesh"], found["update_mesh"]) == ("4x2", "2x4")
    sent = found["phases"]["reshard"]["sent_bytes"]
    assert sent == device_bytes(plan.step.params_copy)
    plain = result.make_plan(flags, plans.config(), TINY, devices)
    assert "update.mesh" not in result.as_text(plain)
    assert "reshard" not in plain.phases


def test_sizes_that_cannot_be_are_refused_by_the_flag():
    with pytest.raises(UserError, match=r"--update.mesh 4x4 needs 16 devices, but --mesh has 8"):
        plans.step(own("4x4"))
    with pytest.raises(UserError, match=r"\(4\) is below the 8 data shards of --update.mesh 8x1"):
        plans.step(own("8x1", micro_batch=4))


def test_where_the_update_alone_does_not_fit_its_own_mesh_is_changed():
    step = plans.step(own())
    changed = [change for changes in bases(own(), step, [UPDATE]) for change in changes]
    assert [change.flag for change in changed] == ["--update.mesh 1x8"]
    changed = bases(own(), step, [plans.named("decode")])[-1]
    assert [change.flag for change in changed] == ["--mesh 2x4"]


def test_both_meshes_grow_with_the_chips():
    devices = devices_for(plans.GPU, "4x2", PlanFlags())
    grown = scaling.grown(own(), devices, 16)
    assert (grown.mesh, grown.update.mesh) == ("8x2", "4x4")
    with pytest.raises(UserError, match=r"no multiple of the tensor axis of --update.mesh \(8\)"):
        scaling.grown(own("1x8"), devices, 4)


@needs_libtpu
def test_compiled_for_tpus_shards_are_exchanged_and_no_weight_is_gathered():
    # Wide enough that the tiles of a TPU fill up no array.
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "head_dim": 128, "vocab_size": 8192}
    model = dataclasses.replace(TINY, **sizes, num_heads=8, num_kv_heads=8)
    step = planned_step(own(), model, devices_for("v5e:2x4", "4x2", PlanFlags()), 64)
    text = plans.named("reshard").lower(step).compile().as_text()
    moved = {kind: sum(sizes.values()) for kind, sizes in collective_bytes(text).items()}
    assert {"all-to-all", "collective-permute"} & moved.keys()
    copy = device_bytes(step.params_copy)
    assert moved.get("all-gather", 0) < 0.1 * copy
    assert sum(moved.values()) <= 2 * copy
